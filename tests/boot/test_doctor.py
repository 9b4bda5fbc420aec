"""`immud doctor` on real systems, before and after, and what it mends."""

import json

from tests.support.container import Container

UNIT = "[Mount]\nWhat=tmpfs\nType=tmpfs\nWhere=/srv/data\n[Install]\nWantedBy=local-fs.target\n"


def codes(machine: Container, *options: str) -> dict[str, str]:
    said = machine.run("immud", "doctor", "--json", *options, check=False).stdout
    return {advice["code"]: advice["severity"] for advice in json.loads(said)}


def test_a_stock_system_before_and_after(container: Container) -> None:
    container.disk.write("/etc/systemd/system/srv-data.mount", UNIT)
    container.disk.write("/etc/systemd/system/safe.service", "[Service]\nProtectHome=yes\n")
    container.disk.write("/etc/fstab", "UUID=0-0 /home/x ext4 noauto 0 0\n")
    container.disk.run("useradd", "-m", "-d", "/home/bob", "bob")
    container.boot()
    print(container.run("immud", "doctor", check=False).stdout)
    before = codes(container)
    assert before["mount-unit"] == "warning"
    assert before["protect-home"] == "warning"
    assert before["fstab"] == "warning"
    assert before["unadopted"] == "notice"
    assert not {"home-in-passwd", "new-homes"} & set(before), "/home is no link yet"
    container.run("immud", "doctor", "--fix", check=False)
    container.run("useradd", "-m", "dan")
    assert container.run("sh", "-c", "echo ~dan").stdout == "/home/dan\n"

    container.run("sh", "-c", "rm /etc/systemd/system/srv-data.mount; echo >/etc/fstab")
    container.run("immud", "adopt")
    container.run("immud", "enable")
    container.reboot()
    after = codes(container)
    assert after["home-in-passwd"] == "notice"
    assert not {"unadopted", "apparmor", "mount-unit", "separate-partition"} & set(after), after
    assert "error" not in after.values(), after

    # What is safe is mended, on the read-only /usr too.
    container.run("immud", "unlock", "--", "sh", "-c", "rm -r /usr/lib/python3/dist-packages/immud"
                  "/__pycache__")  # fmt: skip
    container.run("rm", "/etc/apparmor.d/tunables/home.d/immud")
    assert {"no-bytecode", "new-homes", "apparmor"} <= set(codes(container))
    fixed = container.run("immud", "doctor", "--fix", check=False)
    assert "compiled immud's modules" in fixed.stderr
    assert "new users get homes in /var/home" in fixed.stderr
    assert not {"no-bytecode", "new-homes", "apparmor"} & set(codes(container))
    container.run("useradd", "-m", "eve")
    assert container.run("sh", "-c", "echo ~eve").stdout == "/var/home/eve\n"
    assert container.run("immud", "doctor", user="bob", check=False).status == 4
