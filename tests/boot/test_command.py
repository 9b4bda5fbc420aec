"""The command on a booted, immutable system."""

import json

from tests.support.container import Container


def test_status_plan_enable_and_disable(container: Container) -> None:
    container.disk.run("env", "container=chroot", "immud", "enable")
    container.boot()
    status = container.run("immud", "status").stdout
    print(status)
    record = json.loads(container.run("immud", "status", "--json").stdout)
    assert record["state"] == "running"
    assert record["usr_read_only"]
    assert record["root_read_only"]
    assert {mount["where"] for mount in record["mounts"]} >= {"/", "/usr", "/etc", "/var"}

    # The mounts of this boot hide none of the next one's steps.
    plan = container.run("immud", "plan").stdout
    print(plan)
    assert "mount      /usr             read-only, from /usr\n" in plan
    assert plan.endswith("read-only  /\n")

    again = container.run("immud", "enable").stdout
    assert again == "Enabled already, and the boot plan is up to date.\n"
    # A daemon that runs knows of a new tomb at once.
    container.run("tee", "/etc/immud/immud.toml", input='[tomb.home]\nlabel = "mine"\n')
    assert "The tombs follow the configuration now." in container.run("immud", "enable").stdout
    (tomb,) = json.loads(container.run("immud", "status", "--json").stdout)["tombs"]
    assert tomb["name"] == "home"
    container.run("immud", "disable")
    assert container.run("systemctl", "is-enabled", "immud", check=False).stdout == "disabled\n"
    container.reboot()
    container.run("touch", "/usr/writable", "/writable")
    told = container.run("immud", "status", check=False)
    assert told.status == 3
    assert "not enabled" in told.stderr


def test_a_report_has_what_is_needed_and_no_secret(container: Container) -> None:
    container.disk.run("env", "container=chroot", "immud", "enable")
    container.disk.run("mkdir", "-p", "/etc/immud/keys")
    container.disk.write("/etc/immud/keys/home", "hunter2")
    tomb = '[tomb.home]\nlabel = "mine"\nkey = "/etc/immud/keys/home"\n'
    container.disk.write("/etc/immud/immud.toml", tomb)
    container.disk.write("/etc/fstab", "//nas/x /mnt/x cifs noauto,password=hunter2 0 0\n")
    container.boot()
    # One lease that is over, and one that is not.
    container.run("immud", "unlock", "--", "sh", "-c", "echo hunter2\n\n\t echo hunter2\n")
    lasting = "setsid immud unlock -- sh -c 'touch /run/go; sleep 100; : hunter2' >/dev/null 2>&1 &"
    container.run("sh", "-c", f"{lasting} until [ -e /run/go ]; do sleep 0.02; done")
    whole = container.run("immud", "debug").stdout
    assert whole.count("was given to root: [left out]\n") >= 2
    for part in ("immud.toml", "mountinfo", "packages", "unit file", "journal of this boot"):
        assert f"{part} ==" in whole, part
    assert '"root_read_only": true' in whole
    assert "Layout done" in whole or "immud.service" in whole
    assert "hunter2" not in whole
    container.run("systemctl", "stop", "immud-lease-*")
    explained = container.run("journalctl", "-b", "-x", "-u", "immud", "--no-pager").stdout
    assert "Subject: immud is on the bus" in explained
    told = container.run("immud", "debug", "--output", "/var/tmp/report").stdout
    assert "read it before you send it" in told
    assert container.run("stat", "-c", "%a", "/var/tmp/report").stdout == "600\n"
    again = container.run("immud", "debug", "--output", "/var/tmp/report", check=False)
    assert (again.status, "exists" in again.stderr) == (1, True)
    # of what a user may not read, it says so, and goes on
    container.run("useradd", "-m", "-d", "/var/home/bob", "bob")
    assert "by not root" in container.run("immud", "debug", user="bob").stdout
