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
    container.run("immud", "disable")
    assert container.run("systemctl", "is-enabled", "immud", check=False).stdout == "disabled\n"
    container.reboot()
    container.run("touch", "/usr/writable", "/writable")
    told = container.run("immud", "status", check=False)
    assert told.status == 3
    assert "not enabled" in told.stderr
