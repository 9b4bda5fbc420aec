"""The mount table of this namespace, read as far as it is wanted.

With statmount(2) and listmount(2) a look costs what is looked at; without them, the one file
that has everything is read once a look, and few of its lines are parsed.
"""

import errno
import os
from collections.abc import Callable, Iterable
from functools import cache, lru_cache

from immud.early import mountinfo
from immud.early.mountinfo import MountEntry
from immud.early.plan import unescape
from immud.watch import statmount

Boring = Callable[[str, str, str], bool]
"""Whether a mount can be left out of account, by its device, its root and its target."""


_SERVERS = frozenset(
    {"9p", "afs", "autofs", "ceph", "cifs", "fuse", "fuseblk", "nfs", "nfs4", "smb3", "virtiofs"}
)


@cache
def is_quick() -> bool:
    """Whether the kernel shows single mounts; it does not change its mind."""
    return statmount.available()


def asks(passed: Iterable[MountEntry]) -> bool:
    """Whether a walk through these mounts asks a server, which may not answer.

    That of / does not count: nothing goes on without it.
    """
    return any(_is_server(entry) and entry.target != "/" for entry in passed)


def served(path: str) -> bool:
    """Whether a walk to `path` asks a server on its way; none is asked to find out."""
    if not is_quick():
        return asks(mountinfo.way(mountinfo.read(), os.path.dirname(path)))
    try:
        for stop in _way(path)[1:-1]:
            number, _ = statmount.mount_at(stop)
            if _has_server(number) and number != statmount.mount_at("/")[0]:
                return True
    except OSError as error:
        # A FUSE of somebody else's says nothing; and where nothing is, nobody is asked.
        return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    return False


class Reading:
    """One look at the table. Everything it says is of one moment, or as good as."""

    def __init__(self) -> None:
        self._read: list[str] | None = None

    def lines(self) -> list[str]:
        """mountinfo's lines, read at most once."""
        if self._read is None:
            self._read = mountinfo.text().split("\n")[:-1]
        return self._read

    def visible(self, paths: Iterable[str]) -> tuple[MountEntry, ...]:
        """The mounts that are seen at exactly these paths, with all that `mountinfo.top` needs
        to find each. Nothing is said of any other path.
        """
        wanted = sorted({*paths, "/"}, key=len)
        if not is_quick():
            return self._ways(wanted)
        found: dict[str, MountEntry] = {}
        for path in wanted:
            if entry := self._seen(path):
                above = next((stop for stop in reversed(_way(path)[:-1]) if stop in found), None)
                # What lies between is of no interest: a walk from the one ends on the other.
                entry.parent = found[above].id if above else 0
                found[path] = entry
        return tuple(found.values())

    def top(self, path: str) -> MountEntry | None:
        """The mount seen at exactly `path`, if there is one."""
        return self._seen(path) if is_quick() else mountinfo.top(self._ways((path,)), path)

    def _seen(self, path: str) -> MountEntry | None:
        return mountinfo.top(self._ways((path,)), path) if served(path) else _at(path)

    def _ways(self, paths: Iterable[str]) -> tuple[MountEntry, ...]:
        """All mounts on the ways to `paths`."""
        stops = {_escaped(stop) for path in paths for stop in _way(path)}
        return _parse(line for line in self.lines() if line.split(" ", 5)[4] in stops)

    def stack(self, path: str) -> tuple[MountEntry, ...]:
        """All mounts at exactly `path`, also those another one hides there."""
        if not is_quick() or served(path):
            target = _escaped(path)
            return _parse(line for line in self.lines() if line.split(" ", 5)[4] == target)
        found = []
        entry = _at(path)
        while entry and entry.target == path:
            found.append(entry)
            entry = _under(entry, path)
        return tuple(found)


def top(path: str) -> MountEntry | None:
    """The mount seen at exactly `path`, if there is one."""
    return Reading().top(path)


class Newcomers:
    """Finds the places of mounts that are not boring.

    Numbers of mounts only ever grow, so the quick way asks for those above the last one. It
    misses a mount that was moved, or that was made long before it was attached: for these,
    `all` reads the whole table once in a while.
    """

    def __init__(self, boring: Boring) -> None:
        self._boring = boring
        self._last = 0
        self._known: set[str] = set()

    def forget(self) -> None:
        """Other mounts are boring now than before."""
        self._known.clear()

    def all(self, reading: Reading) -> set[str]:
        """The targets of all mounts that are not boring."""
        if is_quick():
            # Before the table is read: what is attached meanwhile is in one or the other.
            self._last = max(statmount.listmount(self._last), default=self._last)
        lines = set(reading.lines())
        found = set()
        new = lines - self._known
        self._known &= lines
        for line in new:
            fields = line.split(" ", 5)
            dev, root, target = fields[2], unescape(fields[3]), unescape(fields[4])
            if self._boring(dev, root, target):
                self._known.add(line)
            else:
                found.add(target)
        return found

    def fresh(self, reading: Reading, attached: Iterable[int] = ()) -> set[str]:
        """The same of those that came since, and of all where that cannot be told.

        `attached` are mounts known to have come, whatever their number.
        """
        if not is_quick():
            return self.all(reading)
        found = set()
        new = statmount.listmount(self._last)
        self._last = max(new, default=self._last)
        for number in {*new, *attached}:
            try:
                entry = statmount.statmount(number)
            except OSError:
                continue  # gone already
            if not self._boring(entry.dev, entry.root, entry.target):
                found.add(entry.target)
        return found


def _at(path: str) -> MountEntry | None:
    try:
        number, is_root = statmount.mount_at(path)
        entry = statmount.statmount(number) if is_root else None
    except OSError as error:
        if error.errno in (errno.EIO, errno.EUCLEAN):
            # An xfs that has shut down says nothing of itself; the whole table still has it.
            return mountinfo.top(mountinfo.read(), path)
        return None  # not there, or not any more, which the kernel will announce
    if entry is None or entry.target != path:
        return None  # behind a link, a mount of another name
    entry.source = entry.source or _source(number)
    return entry


def _under(entry: MountEntry, path: str) -> MountEntry | None:
    try:
        under = statmount.statmount(entry.parent) if entry.parent != entry.id else None
    except OSError:
        return None
    if under and under.target == path:
        under.source = under.source or _source(under.id)
    return under


@lru_cache(maxsize=256)
def _has_server(number: int) -> bool:
    return _is_server(statmount.statmount(number))


def _is_server(entry: MountEntry) -> bool:
    return entry.fstype.partition(".")[0] in _SERVERS


@lru_cache(maxsize=64)
def _source(number: int) -> str:
    """What statmount does not tell before Linux 6.14. A mount keeps its source, and its number
    is never given to another: once read, it is known.
    """
    old = statmount.old_number(number)
    return next((entry.source for entry in mountinfo.read() if entry.id == old), "")


def _way(path: str) -> list[str]:
    """All paths from / to `path`."""
    way = ["/"] + [path[:at] for at, c in enumerate(path) if c == "/" and at]
    return way if path == "/" else [*way, path]


def _escaped(path: str) -> str:
    """`path` as mountinfo has it (show_mountinfo() of the kernel)."""
    for character in "\\ \t\n":
        path = path.replace(character, f"\\{ord(character):03o}")
    return path


def _parse(lines: Iterable[str]) -> tuple[MountEntry, ...]:
    return mountinfo.parse("\n".join(lines))
