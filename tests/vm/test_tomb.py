"""A tomb in a real machine: plugged in, pulled out, held, twinned, the daemon gone meanwhile."""

from collections.abc import Callable

import pytest

from immud.log import MessageId
from tests.support.drive import CONTENT, LETTER, PASSPHRASE, Drive
from tests.support.fixtures import HOME_UUID
from tests.support.tomb import KEY, assert_no_residue, configure, hold, state, wait_ended, wait_for
from tests.support.vm import VM
from tests.support.yanks import yanks


def test_plugged_in_it_is_there_and_pulled_out_it_is_gone(vm: VM, home_drive: Drive) -> None:
    vm.plug(home_drive)
    wait_for(vm, "open")
    assert vm.run("cat", f"/home/{LETTER}", user="alice").stdout == CONTENT[LETTER]
    options = vm.run("findmnt", "-no", "OPTIONS", "/var/home").stdout
    assert "nosuid" in options
    assert "nodev" in options
    vm.wait_until("systemctl is-active immud-tomb.target")
    hold(vm)
    vm.yank(home_drive)
    wait_for(vm, "absent")
    assert_no_residue(vm)
    vm.wait_until("! systemctl is-active immud-tomb.target")
    wait_ended(vm, "writer", "sitter", "inner")
    assert vm.succeeds("systemctl", "is-active", "private"), "it held nothing but a mount"
    vm.run("systemctl", "stop", "private")
    # And again and again; all two hundred are in tests/long.
    yanks(vm, home_drive, 10)
    said = "\n".join(vm.messages())
    assert "sitter.service): it held the pulled tomb home" in said
    # Nothing of all that is tampering.
    assert vm.run("immud", "verify").status == 0
    assert not vm.messages("-b", "MESSAGE_ID=6c5c1e5da8504854908432a81e2441df")


def test_a_holder_is_named_and_nothing_is_closed_under_it(vm: VM, home_drive: Drive) -> None:
    vm.plug(home_drive)
    wait_for(vm, "open")
    vm.run(*("systemd-run", "--quiet", "--unit=sitter"), "--property=WorkingDirectory=/var/home",
           "sleep", "1000")  # fmt: skip
    refused = vm.run("immud", "close", "home", check=False)
    assert refused.status == 1
    assert "sleep" in refused.stderr
    assert "sitter.service" in refused.stderr
    assert state(vm) == "open"
    vm.run("systemctl", "stop", "sitter")
    vm.run("immud", "close", "home")
    assert state(vm) == "present"
    assert_no_residue(vm)
    vm.run("immud", "open", "home")
    assert state(vm) == "open"
    vm.run("immud", "eject", "home")
    wait_for(vm, "absent")
    assert_no_residue(vm)
    assert not vm.succeeds("test", "-e", f"/dev/disk/by-uuid/{HOME_UUID}")
    vm.wait_until("! ls -d /sys/bus/usb/drivers/usb-storage/*:*")
    assert not vm.messages("-b", f"MESSAGE_ID={MessageId.TOMB_LOST}")


def test_the_agents_are_asked(vm: VM, home_drive: Drive) -> None:
    configure(vm, f'uuid = "{HOME_UUID}"\nkey = "ask"\n')
    vm.plug(home_drive)
    vm.wait_until("ls /run/systemd/ask-password/ask.*")
    assert state(vm) == "unlocking"
    # The protocol of systemd's password agents: a datagram, `+` and the passphrase.
    answer = """
import glob, socket, sys
question = open(glob.glob("/run/systemd/ask-password/ask.*")[0]).read()
where = next(l for l in question.splitlines() if l.startswith("Socket="))[7:]
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"+" + sys.stdin.buffer.read(), where)
"""
    vm.run("python3", "-c", answer, input=PASSPHRASE)
    wait_for(vm, "open")
    vm.yank(home_drive)
    wait_for(vm, "absent")


def test_a_question_ends_with_the_drive(vm: VM, home_drive: Drive) -> None:
    configure(vm, f'uuid = "{HOME_UUID}"\nkey = "ask"\n')
    vm.plug(home_drive)
    vm.wait_until("ls /run/systemd/ask-password/ask.*")
    vm.yank(home_drive)
    wait_for(vm, "absent")
    vm.wait_until("! ls /run/systemd/ask-password/ask.*")
    assert_no_residue(vm)


def test_a_restarted_daemon_keeps_it_open(vm: VM, home_drive: Drive) -> None:
    vm.plug(home_drive)
    wait_for(vm, "open")
    before = vm.run("findmnt", "-no", "ID", "/var/home").stdout
    vm.run("systemctl", "restart", "immud")
    wait_for(vm, "open")
    assert vm.run("findmnt", "-no", "ID", "/var/home").stdout == before
    # Whoever takes its protection away is noticed.
    vm.run("mount", "-o", "remount,bind,suid,nodev", "/var/home")
    told = vm.run("immud", "verify", check=False)
    assert told.status == 1
    assert "without nosuid" in told.stdout
    vm.run("mount", "-o", "remount,bind,nosuid,nodev", "/var/home")
    assert vm.run("immud", "verify").status == 0
    vm.yank(home_drive)
    wait_for(vm, "absent")
    assert_no_residue(vm)


def test_pulled_while_there_is_no_daemon(vm: VM, home_drive: Drive) -> None:
    vm.plug(home_drive)
    wait_for(vm, "open")
    hold(vm)
    vm.run("systemctl", "mask", "--runtime", "immud")
    vm.run("systemctl", "kill", "--signal=SIGKILL", "immud")
    vm.wait_until("! systemctl is-active immud")
    vm.yank(home_drive)
    vm.wait_until(f"! test -e /dev/disk/by-uuid/{HOME_UUID}")
    vm.run("systemctl", "unmask", "--runtime", "immud")
    vm.run("systemctl", "start", "immud")
    wait_for(vm, "absent")
    assert_no_residue(vm)
    vm.plug(home_drive)
    wait_for(vm, "open")


def test_pulled_after_a_closing_that_a_namespace_was_in_the_way_of(
    vm: VM, home_drive: Drive
) -> None:
    vm.plug(home_drive)
    wait_for(vm, "open")
    private = ("--property=PrivateMounts=yes", "--property=MountFlags=private")
    vm.run(*("systemd-run", "--quiet", "--collect", "--unit=private"), *private,
           "--property=WorkingDirectory=/var/home", "sleep", "1000")  # fmt: skip
    for _ in range(2):
        refused = vm.run("immud", "close", "home", check=False)
        assert refused.status == 1
        assert "private.service" in refused.stderr
        wait_for(vm, "failed")
        # What the namespace has mounted is not damaged for that.
        vm.run("immud", "open", "home")
        wait_for(vm, "open")
        assert vm.succeeds("touch", "/var/home/written")
    vm.run("immud", "close", "home", check=False)
    vm.yank(home_drive)
    wait_for(vm, "absent")
    wait_ended(vm, "private")
    assert_no_residue(vm)
    vm.plug(home_drive)
    wait_for(vm, "open")


@pytest.mark.parametrize("key", ["label", "partuuid", "serial"])
def test_known_by_another_name(vm: VM, drives: Callable[..., Drive], key: str) -> None:
    drive = drives(label="my tomb", partition=True)
    configure(vm, f'{key} = "{getattr(drive, key)}"\n{KEY}')
    vm.plug(drive)
    wait_for(vm, "open")


def test_plugged_in_before_it_was_configured(vm: VM, drives: Callable[..., Drive]) -> None:
    drive = drives(label="not known yet")
    vm.plug(drive)
    vm.wait_until(f"udevadm settle; test -e /dev/disk/by-uuid/{drive.uuid}")
    configure(vm, f'uuid = "{drive.uuid}"\n{KEY}')
    wait_for(vm, "open")


def test_of_two_that_answer_neither_is_opened(vm: VM, drives: Callable[..., Drive]) -> None:
    configure(vm, f'label = "twin"\nauto_open = false\n{KEY}')
    first, second = drives(label="twin"), drives(label="twin")
    vm.plug(first)
    wait_for(vm, "present")
    vm.plug(second)
    wait_for(vm, "ambiguous")
    refused = vm.run("immud", "open", "home", check=False)
    assert refused.status == 1
    assert "More than one drive" in refused.stderr
    assert_no_residue(vm)
    vm.yank(second)
    wait_for(vm, "present")
