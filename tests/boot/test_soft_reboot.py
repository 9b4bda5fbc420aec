"""systemctl soft-reboot: everything but the kernel and /run begins anew, and so does the layout."""

import time

from tests.boot.test_elsewhere import configure, enable, problems
from tests.boot.test_layout import failures, healthy, layout
from tests.support.container import Container
from tests.support.layout import complaints

WELCOME = "Welcome to Debian"


def soft_reboot(machine: Container) -> None:
    """Begin anew, and wait for the end of that boot."""
    boots = machine.console.count(WELCOME)
    machine.run("systemctl", "soft-reboot", "--no-block")
    # From outside: whoever is inside is ended with all the others, or waits for an answer.
    limit = time.monotonic() + 30
    while machine.console.count(WELCOME) == boots:
        assert time.monotonic() < limit, machine.console
        time.sleep(0.05)
    machine.wait_until("systemctl", "is-active", "--quiet", "immud-boot-complete")


def test_the_layout_is_whole_after_it(container: Container) -> None:
    container.disk.run("env", "container=chroot", "immud", "enable")
    container.boot()
    healthy(container)
    before = layout(container)
    soft_reboot(container)
    healthy(container)
    assert complaints(container) == []
    assert sorted(layout(container)) == sorted(before)


def test_so_it_is_with_another_etc_and_its_configuration(container: Container) -> None:
    configure(container, '[etc]\nsource = "/data/etc"\n[var]\nsource = "/data/var"\n')
    container.disk.run("mkdir", "-p", "/data/etc", "/data/var")
    enable(container, "--seed")
    container.disk.write("/data/etc/fstab", "")  # its / is not a device that is there
    container.boot()
    before = layout(container)
    soft_reboot(container)
    assert container.system_state() == "running"
    assert complaints(container) == []
    assert sorted(layout(container)) == sorted(before)
    assert "plan-missing" not in problems(container)
    assert container.run("readlink", "-e", "/etc/.immud", "/etc/immud/boot.plan").stdout
    assert failures(container, container.poweroff()) == set()
