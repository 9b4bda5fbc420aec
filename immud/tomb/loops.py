"""What stands on a block device: loop devices on its files, partitions and mappings of those.

A loop device keeps the file system of its file alive as any open file does, but
no process has it open (loop(4)).
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress

_LOOP_CLR_FD = 0x4C01
_LOOP_GET_STATUS64 = 0x4C05
# struct loop_info64 of linux/loop.h begins with the device and the inode of the file.
_INFO = struct.Struct("=Q Q 216x")


def _number(path: str) -> str:
    with open(f"{path}/dev", encoding="ascii") as file:
        return file.read().strip()


def _loops() -> Iterator[str]:
    """The names of the loop devices that have a file."""
    for name in os.listdir("/sys/block"):
        if name.startswith("loop") and os.path.exists(f"/sys/block/{name}/loop"):
            yield name


def _backing(name: str) -> tuple[str, int]:
    """A loop device's file: the `major:minor` of its file system, and its inode."""
    buffer = bytearray(_INFO.size)
    fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _LOOP_GET_STATUS64, buffer)
    finally:
        os.close(fd)
    number, inode = _INFO.unpack(buffer)
    return f"{os.major(number)}:{os.minor(number)}", inode


def using(file: int) -> str:
    """The node of a loop device that has the open file already, empty where none has."""
    found = os.fstat(file)
    wanted = (f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}", found.st_ino)
    for name in _loops():
        # Detached in the meantime.
        with suppress(OSError):
            if _backing(name) == wanted:
                return f"/dev/{name}"
    return ""


def ground(number: str) -> str:
    """The `major:minor` of what a loop device's file is on; `number` where it is no loop device."""
    try:
        name = os.path.basename(os.readlink(f"/sys/dev/block/{number}"))
        return _backing(name)[0] if number.startswith("7:") else number
    except OSError:
        return ""


def _above(number: str) -> Iterator[str]:
    """Partitions of a device, and mappings that stand on it."""
    where = f"/sys/dev/block/{number}"
    with suppress(FileNotFoundError):
        name = os.path.basename(os.readlink(where))
        for entry in os.listdir(where):
            if entry.startswith(name) and os.path.exists(f"{where}/{entry}/partition"):
                yield _number(f"{where}/{entry}")
        for entry in os.listdir(f"{where}/holders"):
            yield _number(f"{where}/holders/{entry}")


def stack(numbers: list[str]) -> list[str]:
    """`numbers` (`major:minor`), and every block device that stands on a file or part of them."""
    found = list(numbers)
    backed = {}
    for name in _loops():
        # Detached in the meantime.
        with suppress(OSError):
            backed[_number(f"/sys/block/{name}")] = _backing(name)[0]
    for number in found:
        above = [loop for loop, backing in backed.items() if backing == number]
        above += _above(number)
        # The list grows while it is walked: what stands on these is looked for as well.
        found += [one for one in above if one not in found]
    return found


def detach(numbers: list[str]) -> int:
    """Take their files from the loop devices among `numbers`; how many that were.

    One that is still open does it when it no longer is.
    """
    count = 0
    for number in numbers:
        if number.startswith("7:"):
            with suppress(OSError):
                name = os.path.basename(os.readlink(f"/sys/dev/block/{number}"))
                fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.ioctl(fd, _LOOP_CLR_FD)
                    count += 1
                finally:
                    os.close(fd)
    return count
