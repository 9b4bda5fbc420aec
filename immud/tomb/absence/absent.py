"""What is in a tomb's place while the tomb is away. Pure.

`directory` is the directory the tomb is mounted over, `volatile` a tmpfs with a home
for each user, `nologin` the directory again and nobody but root let in.
"""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

from immud.config.rules import within
from immud.early.mountinfo import MountEntry, top
from immud.model import TombConfig

# What the tmpfs says it is made from, by which any later daemon knows it for ours.
SOURCE = "immud-absent"
# A tmpfs counts no inodes against its size, and the kernel never swaps them out.
BYTES_PER_INODE = 16384
# Below this a home of its own is somebody's, and not a daemon's: UID_MIN of login.defs(5).
FIRST_PERSON = 1000


class Absent(StrEnum):
    """The modes, as in the configuration and on the bus."""

    DIRECTORY = "directory"
    VOLATILE = "volatile"
    NOLOGIN = "nologin"


class User(NamedTuple):
    """Of an entry of passwd(5), what a home needs."""

    uid: int
    gid: int
    home: str


class Home(NamedTuple):
    """A home in a tomb's place: a name in it, or the empty one for the place itself."""

    name: str
    uid: int
    gid: int


def homes(users: Iterable[User], target: str, real: Callable[[str], str]) -> tuple[Home, ...]:
    """The homes at `target`, one for each name; `real` is realpath(3).

    The place is one person's home only where nobody's is inside it: daemons are
    sometimes given all of /home for a home.
    """
    inside: dict[str, Home] = {}
    itself: list[Home] = []
    for uid, gid, home in users:
        parent, _, name = home.rstrip("/").rpartition("/")
        if not home.startswith("/") or name in ("", ".", ".."):
            continue
        directory = real(parent or "/")
        if directory == target:
            inside.setdefault(name, Home(name, uid, gid))
        elif f"{directory.rstrip('/')}/{name}" == target and uid >= FIRST_PERSON:
            itself.append(Home("", uid, gid))
    return tuple(inside.values()) or tuple(itself[:1])


def choose(configured: str, *, empty: bool, lived_in: bool) -> Absent:
    """What the place is to be: as configured, or else by what is in it.

    Where nobody lives, what is written is not taken for somebody's to lose.
    """
    if configured:
        return Absent(configured)
    return Absent.VOLATILE if empty and lived_in else Absent.DIRECTORY


def limits(size: str, memory: int) -> tuple[int, int]:
    """Bytes and inodes for `512M`, `2G` or `10%` of `memory` bytes."""
    number, unit = int(size[:-1]), size[-1]
    total = memory * number // 100 if unit == "%" else number << {"M": 20, "G": 30}[unit]
    return total, max(total // BYTES_PER_INODE, 1024)


def ours(entry: MountEntry) -> bool:
    """Whether a mount is a fallback that immud made."""
    return entry.fstype == "tmpfs" and entry.source == SOURCE


def fallback(table: Iterable[MountEntry], target: str) -> MountEntry | None:
    """The fallback at `target`, whether or not the tomb is over it."""
    return next((e for e in table if e.target == target and ours(e)), None)


class Ground(NamedTuple):
    """Where a place without a mount of its own is seen, and what is mounted inside it."""

    prefixes: tuple[str, ...]
    inside: tuple[str, ...]


def ground(table: tuple[MountEntry, ...], target: str) -> Ground:
    """The directory `target`, also where a bind shows it: a process there has that path.

    `inside` are the `major:minor` of other file systems, whose users do not hold it.
    """
    at = target
    while (entry := top(table, at)) is None and at != "/":
        at = at.rpartition("/")[0] or "/"
    if entry is None:
        return Ground((target,), ())
    root = f"{entry.root.rstrip('/')}{target.removeprefix(at if at != '/' else '')}"
    seen = [e.target for e in table if e.dev == entry.dev and e.root == root]
    inside = {e.dev for e in table if within(e.target, target)} - {entry.dev}
    return Ground(tuple(dict.fromkeys((target, *seen))), tuple(sorted(inside)))


def shown(table: Iterable[MountEntry], target: str, configured: str) -> Absent:
    """What the place is while its tomb is away, as far as the kernel can show it."""
    if configured == Absent.NOLOGIN:
        return Absent.NOLOGIN
    return Absent.VOLATILE if fallback(table, target) else Absent.DIRECTORY


def drive(config: TombConfig) -> str:
    """The drive as a person would know it."""
    for word, value in (
        ("labelled", config.label),
        ("with the serial number", config.serial),
        ("with the LUKS UUID", config.uuid),
        ("with the partition UUID", config.partuuid),
    ):
        if value:
            return f"the drive {word} {value}"
    return "the drive"


def announcement(config: TombConfig) -> str:
    """What somebody is told who logs in to a volatile home."""
    return (
        "Your home is in this machine's memory: what you save in it is lost at power-off.\n"
        f"Your own is in tomb {config.name}, on {drive(config)}.\n"
    )


def reminder(path: str) -> str:
    """The same where no tomb is configured any more."""
    return (
        f"What is in {path} is in this machine's memory, and lost at power-off.\n"
        "No tomb is configured there any more.\n"
    )


def refusal(config: TombConfig) -> str:
    """What somebody is told who may not log in."""
    return (
        f"People's homes are in tomb {config.name}, which is not open.\n"
        f"Plug in {drive(config)}, then log in.\n"
    )
