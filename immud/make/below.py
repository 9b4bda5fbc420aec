"""What a mount or a mapping stands on, as sysfs has it."""

import os
import stat

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
