"""The virtual machines themselves: restored, with drives plugged in, pulled out, found at boot."""

from collections.abc import Callable

import pytest

from tests.support.drive import CONTENT, LETTER, PASSPHRASE, Drive
from tests.support.process import CommandFailed
from tests.support.vm import VM

OPEN = 'cryptsetup open --key-file=- "/dev/disk/by-uuid/$1" inner && mount /dev/mapper/inner /mnt'


def test_a_drive_made_here_opens_there(stock_vm: VM, drives: Callable[..., Drive]) -> None:
    drive = drives()
    stock_vm.plug(drive)
    stock_vm.wait_until(f"test -e /dev/disk/by-uuid/{drive.uuid}")
    stopwatch = stock_vm.stopwatch("/mnt", "mounted")
    stock_vm.run("sh", "-ec", OPEN, "sh", drive.uuid, input=PASSPHRASE)
    assert stock_vm.run("cat", f"/mnt/{LETTER}", user="alice").stdout == CONTENT[LETTER]
    assert stock_vm.run("fsck.ext4", "-fn", "/dev/mapper/inner").status == 0
    assert "mounted" in stock_vm.measured(stopwatch)


def test_a_yanked_drive_is_gone_and_another_comes(
    stock_vm: VM, drives: Callable[..., Drive]
) -> None:
    first, second = drives(), drives(partition=True)
    stock_vm.plug(first)
    stock_vm.plug(second)
    stock_vm.wait_until(f"test -e /dev/disk/by-uuid/{first.uuid}")
    stock_vm.wait_until(f"test -e /dev/disk/by-partuuid/{second.partuuid}")
    stock_vm.yank(first)
    stock_vm.wait_until(f"! test -e /dev/disk/by-uuid/{first.uuid}")
    assert first.serial not in stock_vm.run("lsblk", "-o", "serial").stdout
    stock_vm.plug(first)
    stock_vm.wait_until(f"test -e /dev/disk/by-uuid/{first.uuid}")


def test_each_machine_starts_from_the_saved_state(stock_vm: VM) -> None:
    with pytest.raises(CommandFailed, match="No such file"):
        stock_vm.run("cat", "/etc/left")
    stock_vm.run("touch", "/etc/left")
    assert stock_vm.system_state() == "running"


def test_a_power_cut_keeps_what_was_synced_and_a_drive_is_found_at_boot(
    stock_vm: VM, drives: Callable[..., Drive]
) -> None:
    stock_vm.shell("echo kept >/etc/kept; sync")
    stock_vm.cut_power()
    drive = drives()
    stock_vm.boot(drives=[drive])
    assert stock_vm.run("cat", "/etc/kept").stdout == "kept\n"
    stock_vm.wait_until(f"test -e /dev/disk/by-uuid/{drive.uuid}")
    assert "Reached target" in stock_vm.poweroff()
