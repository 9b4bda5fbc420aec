"""/usr from an image, with the modules of the kernel that runs."""

from pathlib import Path

from tests.support.drive import Drive
from tests.support.machines import USR_UUID
from tests.support.vm import VM
from tests.vm.test_boot import immutable


def configure(machine: VM, source: str) -> None:
    # A drive takes long to appear in an emulated machine, and that is not the point here.
    text = f'[usr]\nsource = "{source}"\n[boot]\nwait = 120\n'
    machine.run("tee", "/etc/immud/immud.toml", input=text)
    machine.run("immud", "enable")


def from_the_image(machine: VM) -> None:
    immutable(machine)
    told = machine.shell("findmnt -no FSTYPE /usr; cat /usr/origin; modprobe xfs; ls /sys/fs/xfs")
    assert told.split() == ["erofs", "image", "stats"]
    assert machine.messages("-b", "-p", "warning", "-u", "immud") == []


def test_on_a_drive_by_uuid(vm: VM, usr_image: Path) -> None:
    drive = Drive(usr_image, USR_UUID, "", "USR00001")
    vm.plug(drive)
    vm.wait_until(f"test -e /dev/disk/by-uuid/{USR_UUID}")
    configure(vm, f"UUID={USR_UUID}")
    vm.reboot(drives=[drive])
    from_the_image(vm)
    assert "FAILED" not in vm.poweroff()
