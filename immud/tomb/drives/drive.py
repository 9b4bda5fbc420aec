"""The drive below a volume, as sysfs shows it."""

import fcntl
import os
import struct

from immud.errors import Busy
from immud.tomb.drives.below import SYS, text, uses
from immud.watch.devices import Device

BLKROSET = 0x125D  # <linux/fs.h>


def alive(number: str, diskseq: str = "") -> bool:
    """Whether the block device `major:minor` is there, and still the plug called `diskseq`.

    The kernel takes the entry away before it announces the removal. That of a reader whose card
    was pulled, and of an NBD whose connection ended, it keeps: with a size of 0.
    """
    where = f"{SYS}/dev/block/{number}"
    if not os.path.exists(where):
        return False
    # What a partition does not have itself, its disk has.
    if "0" in (text(f"{where}/size"), text(f"{where}/../size")):
        return False
    now = text(f"{where}/diskseq") or text(f"{where}/../diskseq")
    return not (now and diskseq) or now == diskseq


def number_of(devnode: str) -> str:
    """The `major:minor` of a device node. Raises OSError."""
    number = os.stat(devnode).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


def read_only(number: str) -> bool:
    """Whether the kernel takes no writes for the block device: a switch on a card, a mapping so."""
    return text(f"{SYS}/dev/block/{number}/ro") == "1"


def forbid_writing(devnode: str) -> None:
    """Have the kernel take no writes for a block device, for as long as it is there.

    Raises OSError.
    """
    fd = os.open(devnode, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, BLKROSET, struct.pack("i", 1))
    finally:
        os.close(fd)


def bare(number: str) -> Device:
    """A device that udev has nothing about, by what the kernel calls it."""
    real = os.path.realpath(f"{SYS}/dev/block/{number}")
    return Device(real.removeprefix(SYS), f"/dev/{os.path.basename(real)}", number)


def _node(place: str) -> str:
    return "/dev/" + os.path.basename(place).replace("!", "/")


def _numbers(disk: str) -> dict[str, str]:
    """Of a disk and its partitions: where they are in sysfs, by `major:minor`."""
    places = [disk, *(os.path.join(disk, name) for name in sorted(os.listdir(disk)))]
    found = {}
    for place in places:
        if place == disk or os.path.exists(f"{place}/partition"):
            with open(f"{place}/dev", encoding="ascii") as file:
                found[file.read().strip()] = place
    return found


def in_use(disk: str) -> list[str]:
    """Who else uses the drive at `disk` in sysfs, as sentences.

    The kernel is asked too, who knows of more than this namespace's mounts: it would not keep a
    drive from being detached under them. Raises OSError where the drive does not answer.
    """
    places = _numbers(disk)
    nodes = {number: _node(place) for number, place in places.items()}
    holders = [
        (number, holder)
        for number, place in places.items()
        for holder in sorted(os.listdir(f"{place}/holders"))
    ]
    return list(uses(nodes, holders))


def switch_off(disk: str, devnode: str) -> None:
    """Flush the drive's cache and detach it from its bus: USB from its port, else from the driver.

    A drive whose bus knows no such thing (a loop device) is left as it is.
    Raises Busy where another part of it is in use, OSError from sysfs.
    """
    where = SYS + disk
    if used := in_use(where):
        raise Busy(f"The drive of {devnode} is still in use: {'; '.join(used)}.")
    real = os.path.realpath(where)
    # Detaching the SCSI device flushes its cache first; the port is switched off after that.
    _write(f"{real}/device/delete")
    parent = real
    while len(parent) > len(f"{SYS}/devices"):
        parent = os.path.dirname(parent)
        if os.path.exists(f"{parent}/bDeviceClass"):
            _write(f"{parent}/remove")
            break


def _write(path: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(fd, b"1")
    finally:
        os.close(fd)
