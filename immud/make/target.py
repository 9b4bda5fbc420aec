"""The drive that is to become a tomb, as a value: what it is, what is on it, and who uses it."""

from dataclasses import dataclass
from enum import StrEnum

PART_NAME = "immud-tomb"
"""What the GPT calls the one partition of a drive that was partitioned here."""
MAPPING_SUFFIX = ".making"
"""After `immud-NAME`: udev hides it from the desktop, and for the daemon it is no tomb's."""


class Stage(StrEnum):
    """How far an earlier run came, kept in the LUKS2 header's subsystem field.

    A volume whose key slots or file system are not done yet holds nothing of anybody; one
    into which homes are being copied is gone on with.
    """

    NONE = ""
    FORMATTING = "immud-formatting"
    COPYING = "immud-copying"


@dataclass(frozen=True, slots=True)
class Target:
    """A block device. Names are device nodes such as /dev/sdb1; `size` is in bytes.

    `title` is what a person knows it by: maker, model and size. `foreign` says what it is where
    it is no drive and no partition. `uses` and `content` are sentences, `system` the paths of the
    running system that are on it. `leftovers` are mappings of ours that an earlier run left.
    """

    devnode: str
    number: str
    disk: str
    title: str
    size: int
    diskseq: str = ""
    partition: bool = False
    foreign: str = ""
    read_only: bool = False
    parts: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    tombs: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    stage: Stage = Stage.NONE
    volume: str = ""
    leftovers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person asked for. `source` is the directory of the homes to copy, or empty.

    `derivation` are options of cryptsetup(8) for the key derivation.
    """

    name: str = "home"
    filesystem: str = "ext4"
    label: str = ""
    partition: bool = False
    overwrite: bool = False
    source: str = ""
    mount: str = "/var/home"
    key: str = "ask"
    enrol: bool = True
    derivation: tuple[str, ...] = ()


def human(size: int) -> str:
    """A number of bytes as drives are sold by: `57.3 GiB`."""
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
