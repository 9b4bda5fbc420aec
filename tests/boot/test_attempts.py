"""A machine that twice did not come up comes up the third time, and says why."""

from tests.boot.test_elsewhere import KIOSK, STATE
from tests.support.container import Container
from tests.support.layout import complaints

HANG = """[Unit]
DefaultDependencies=no
After=immud.service
Before=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'grep -q skipped /run/immud/facts || sleep infinity'
TimeoutStartSec=infinity
"""


def test_two_boots_that_hang_make_a_plain_third(adopted_container: Container) -> None:
    machine = adopted_container
    machine.disk.write("/etc/systemd/system/hang.service", HANG)
    wants = "/etc/systemd/system/multi-user.target.wants"
    machine.disk.run("ln", "-s", "/etc/systemd/system/hang.service", f"{wants}/hang.service")
    for _ in range(2):
        machine.boot(wait=False)
        machine.wait_until("systemctl", "is-active", "--quiet", "immud")
        assert not machine.succeeds("touch", "/usr/x")
        machine.kill()
    machine.boot()
    assert machine.run(*STATE).stdout == 's "degraded"\n'
    assert "the last 2 boots did not come to their end" in machine.run("immud", "status").stdout
    assert "the last 2 boots did not come to their end" in machine.console
    assert machine.succeeds("touch", "/usr/x")
    assert machine.failed_units() == []
    assert machine.succeeds("systemctl", "is-active", "-q", "console-getty")
    # which came to its end, and the reason is gone: the next one is whole again
    machine.run("rm", f"{wants}/hang.service")
    machine.reboot()
    assert complaints(machine) == []
    assert machine.run("cat", "/etc/immud/boot.count").stdout.split()[-1] == "0"


def test_switched_off_before_the_end_is_no_failure(adopted_container: Container) -> None:
    machine = adopted_container
    machine.disk.write("/etc/systemd/system/hang.service", HANG)
    wants = "/etc/systemd/system/multi-user.target.wants"
    machine.disk.run("ln", "-s", "/etc/systemd/system/hang.service", f"{wants}/hang.service")
    for _ in range(3):
        machine.boot(wait=False)
        machine.wait_until("systemctl", "is-active", "--quiet", "immud")
        assert not machine.succeeds("touch", "/usr/x")
        machine.poweroff()


def test_a_boot_into_another_target_comes_to_its_end_there(adopted_container: Container) -> None:
    machine = adopted_container
    machine.disk.write("/etc/systemd/system/kiosk.target", KIOSK)
    for _ in range(3):
        machine.boot(kernel="systemd.unit=kiosk.target")
        assert not machine.succeeds("touch", "/usr/x")
        machine.wait_until("systemctl", "is-active", "--quiet", "immud-boot-complete")
        assert machine.run("cat", "/etc/immud/boot.count").stdout.split()[-1] == "0"
        machine.kill()
