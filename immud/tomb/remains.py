"""What a purge goes by, kept in /run until it is through: whoever goes on after it was killed has
no other way to know who holds a file system that is in no mount table any more.
"""

import json
import os
from contextlib import suppress

from immud.tomb.drives.below import SYS, text
from immud.tomb.fs.mounts import anonymous
from immud.tomb.luks.dm import Mapping

DIRECTORY = "/run/immud/remains"


def _path(mapping: Mapping) -> str:
    return os.path.join(DIRECTORY, mapping.name.replace("/", "!"))


def _diskseq(mapping: Mapping) -> str:
    """What no other mapping of this boot has, whatever it is called."""
    return text(f"{SYS}/dev/block/{mapping.number}/diskseq")


def keep(mapping: Mapping, devices: list[str], mounts: set[int]) -> None:
    """Remember the `major:minor` of what is on a mapping, and the numbers of its mounts."""
    where = _path(mapping)
    # Without, the purge does no less.
    with suppress(OSError):
        os.makedirs(DIRECTORY, exist_ok=True)
        with open(f"{where}.new", "w", encoding="ascii") as file:
            json.dump((_diskseq(mapping), devices, sorted(mounts)), file)
        os.replace(f"{where}.new", where)


def kept(mapping: Mapping) -> tuple[list[str], set[int]]:
    """What was remembered of it, as far as it still holds."""
    try:
        with open(_path(mapping), encoding="ascii") as file:
            diskseq, devices, mounts = json.load(file)
    except (OSError, ValueError):
        return [], set()
    if not diskseq or diskseq != _diskseq(mapping):
        return [], set()
    if not _has_btrfs(mapping):
        # Their numbers are anybody's as soon as it is gone.
        devices = [number for number in devices if not anonymous(number)]
    return devices, set(mounts)


def _has_btrfs(mapping: Mapping) -> bool:
    """Whether the kernel has a btrfs on it, mounted anywhere or held by somebody."""
    name = os.path.basename(os.path.realpath(f"{SYS}/dev/block/{mapping.number}"))
    with suppress(OSError):
        found = os.listdir(f"{SYS}/fs/btrfs")
        return any(os.path.exists(f"{SYS}/fs/btrfs/{one}/devices/{name}") for one in found)
    return False


def drop(mapping: Mapping) -> None:
    """Nothing of it is left."""
    with suppress(OSError):
        os.unlink(_path(mapping))
