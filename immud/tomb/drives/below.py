"""What a mount or a mapping stands on, as sysfs has it, and who uses a drive."""

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence

from immud.early import mountinfo
from immud.early.mountinfo import MountEntry

SYS = "/sys"


def text(path: str) -> str:
    """What a file of sysfs says, empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def number_of(path: str) -> str:
    """The `major:minor` of the block device at `path`, empty where that is none."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    if not stat.S_ISBLK(found.st_mode):
        return ""
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def device_of(entry: MountEntry) -> str:
    """The block device of a mount; btrfs has numbers of its own, and names its source."""
    if not entry.dev.startswith("0:"):
        return entry.dev
    return number_of(entry.source) if entry.source.startswith("/dev/") else ""


def stack(number: str) -> set[str]:
    """A block device and all that it stands on, by `major:minor`."""
    if not number:
        return set()
    found = {number}
    place = f"{SYS}/dev/block/{number}/slaves"
    for entry in os.listdir(place) if os.path.isdir(place) else ():
        found |= stack(text(f"{place}/{entry}/dev"))
    return found


def uses(
    numbers: Mapping[str, str], holders: Sequence[tuple[str, str]], *, ours: bool = False
) -> Iterator[str]:
    """Who uses the devices `numbers` (node by `major:minor`, the whole first), as sentences.

    `holders` are what stands on them: (number, name). `ours` says that mappings that are not among
    those do, for which the kernel's claim proves nothing. Raises OSError where a drive does not
    answer.
    """
    said = False
    for entry in mountinfo.read():
        if (number := device_of(entry)) in numbers:
            said = True
            yield f"{numbers[number]} is mounted at {entry.target}"
    for number in map(number_of, _swaps()):
        if number in numbers:
            said = True
            yield f"{numbers[number]} is swap space"
    for number, name in holders:
        said = True
        yield f"{numbers[number]} is under {name}"
    if not said and not ours and claimed(next(iter(numbers.values()))):
        # The kernel knows of more than can be seen from here, such as mounts in containers.
        yield "the kernel says that something holds it exclusively, such as a mount in a container"


def _swaps() -> list[str]:
    lines = text("/proc/swaps").split("\n")[1:]
    return [line.split()[0] for line in lines if line]


def claimed(node: str) -> bool:
    """Whether somebody opened it exclusively, which mounts and mappings in any namespace do.

    For a child where the drive may not answer. Raises OSError where it cannot.
    """
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        if error.errno not in (errno.ENOMEDIUM, errno.ENXIO):  # a card that was taken out
            raise
    return False
