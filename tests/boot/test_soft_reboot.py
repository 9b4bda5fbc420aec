"""systemctl soft-reboot: everything but the kernel and /run begins anew, and so does the layout."""

import time

from tests.boot.test_elsewhere import HELLO, configure, enable, problems
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


def test_it_is_the_next_boot_for_a_system_that_was_enabled_while_it_ran(
    container: Container,
) -> None:
    container.boot()
    container.run("immud", "enable")
    assert not container.succeeds("systemctl", "is-active", "--quiet", "immud")
    soft_reboot(container)
    healthy(container)
    assert complaints(container) == []
    assert failures(container, container.poweroff()) == set()


def test_what_is_held_back_is_so_after_it(container: Container) -> None:
    hold = '[boot]\nhold_back = ["hello.service"]\n'
    configure(container, f'{hold}[var]\nsource = "/data/var"\n')
    container.disk.run("mkdir", "-p", "/data/var")
    enable(container, "--seed")
    container.disk.write("/etc/systemd/system/hello.service", HELLO)
    container.disk.run("systemctl", "enable", "hello.service")
    container.boot()
    assert container.run("systemctl", "is-active", "hello").stdout == "active\n"
    # As its drive is pulled: what is mounted there would stay otherwise.
    container.run("rm", "/var/.immud")
    container.run("umount", "--lazy", "/var")
    soft_reboot(container)
    assert "source-missing" in problems(container)
    assert container.run("systemctl", "is-active", "hello", check=False).stdout == "inactive\n"


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
