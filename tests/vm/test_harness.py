"""The virtual machines themselves: restored, with drives plugged in, pulled out, found at boot."""

from collections.abc import Callable

import pytest

from tests.support.drive import CONTENT, LETTER, PASSPHRASE, Drive
from tests.support.image import Image
from tests.support.process import CommandFailed, HarnessError
from tests.support.vm import VM

OPEN = 'cryptsetup open --key-file=- "/dev/disk/by-uuid/$1" inner && mount /dev/mapper/inner /mnt'


def test_a_drive_made_here_opens_there(installed_vm: VM, drives: Callable[..., Drive]) -> None:
    drive = drives()
    installed_vm.plug(drive)
    installed_vm.wait_until(f"test -e /dev/disk/by-uuid/{drive.uuid}")
    stopwatch = installed_vm.stopwatch("/mnt", "mounted")
    installed_vm.run("sh", "-ec", OPEN, "sh", drive.uuid, input=PASSPHRASE)
    assert installed_vm.run("cat", f"/mnt/{LETTER}", user="alice").stdout == CONTENT[LETTER]
    assert installed_vm.run("fsck.ext4", "-fn", "/dev/mapper/inner").status == 0
    assert "mounted" in installed_vm.measured(stopwatch)


def test_a_yanked_drive_is_gone_and_another_comes(
    installed_vm: VM, drives: Callable[..., Drive]
) -> None:
    first, second = drives(), drives(partition=True)
    installed_vm.plug(first)
    installed_vm.plug(second)
    installed_vm.wait_until(f"test -e /dev/disk/by-uuid/{first.uuid}")
    installed_vm.wait_until(f"test -e /dev/disk/by-partuuid/{second.partuuid}")
    installed_vm.yank(first)
    installed_vm.wait_until(f"! test -e /dev/disk/by-uuid/{first.uuid}")
    assert first.serial not in installed_vm.run("lsblk", "-o", "serial").stdout
    installed_vm.plug(first)
    installed_vm.wait_until(f"test -e /dev/disk/by-uuid/{first.uuid}")


def test_each_machine_starts_from_the_saved_state(installed_vm: VM) -> None:
    with pytest.raises(CommandFailed, match="No such file"):
        installed_vm.run("cat", "/etc/left")
    installed_vm.run("touch", "/etc/left")
    assert installed_vm.system_state() == "running"


def test_a_power_cut_keeps_what_was_synced_and_a_drive_is_found_at_boot(
    installed_vm: VM, drives: Callable[..., Drive]
) -> None:
    installed_vm.shell("echo kept >/etc/kept; sync")
    installed_vm.cut_power()
    drive = drives()
    installed_vm.boot(drives=[drive])
    assert installed_vm.run("cat", "/etc/kept").stdout == "kept\n"
    installed_vm.wait_until(f"test -e /dev/disk/by-uuid/{drive.uuid}")
    assert "Reached target" in installed_vm.poweroff()


def test_a_kernel_that_stops_is_an_error_at_once(installed_image: Image) -> None:
    with VM(installed_image) as machine, pytest.raises(HarnessError, match="kernel has stopped"):
        machine.boot(append="rdinit=/nothing init=/nothing root=none")
