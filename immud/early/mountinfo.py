"""The kernel's mount table, as `/proc/PID/mountinfo` shows it (proc_pid_mountinfo(5)).

The one parser of it, light enough for phase 1. Paths keep every byte: what is
not UTF-8 arrives as surrogate escapes, as `os.fsdecode` would give it.
"""

import os

from immud.early.plan import unescape


class MountEntry:
    """One mount. `options` belong to this mount, `super_options` to its file system.

    `dev` is `major:minor` of the file system, `root` the directory of it that is
    mounted, and `optional` its propagation tags (`shared:1`, `master:1`).
    """

    __slots__ = (
        "dev",
        "fstype",
        "id",
        "optional",
        "options",
        "parent",
        "root",
        "source",
        "super_options",
        "target",
    )

    def __init__(
        self,
        *,
        id: int,
        parent: int,
        dev: str,
        root: str,
        target: str,
        options: str,
        optional: tuple[str, ...] = (),
        fstype: str = "",
        source: str = "",
        super_options: str = "",
    ) -> None:
        self.id = id
        self.parent = parent
        self.dev = dev
        self.root = root
        self.target = target
        self.options = options
        self.optional = optional
        self.fstype = fstype
        self.source = source
        self.super_options = super_options

    def _key(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MountEntry) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"MountEntry({self.id} {self.source} at {self.target}, {self.options})"

    @property
    def read_only(self) -> bool:
        """Whether this mount refuses writes; the file system below may still take them."""
        return "ro" in self.options.split(",")


def parse(text: str) -> tuple[MountEntry, ...]:
    """The mounts of a mountinfo `text`, in its order. Raises ValueError for anything else."""
    # Not splitlines(): a path may hold a form feed or another character it would split at.
    return tuple(_entry(line) for line in text.split("\n") if line)


def _entry(line: str) -> MountEntry:
    fields = line.split(" ")
    dash = fields.index("-", 6)
    return MountEntry(
        id=int(fields[0]),
        parent=int(fields[1]),
        dev=fields[2],
        root=unescape(fields[3]),
        target=unescape(fields[4]),
        options=fields[5],
        optional=tuple(fields[6:dash]),
        fstype=unescape(fields[dash + 1]),
        source=unescape(fields[dash + 2]),
        super_options=unescape(fields[dash + 3]),
    )


def read(pid: int | str = "self", proc: int | None = None) -> tuple[MountEntry, ...]:
    """The mounts `pid` sees. Raises OSError where there is no such process any more.

    `proc` is a descriptor of /proc, for who is in a namespace that has another, or none.
    """
    return parse(text(pid, proc))


def text(pid: int | str = "self", proc: int | None = None) -> str:
    """The same as the kernel writes it, for who wants few lines of many."""
    where = f"/proc/{pid}" if proc is None else str(pid)
    fd = os.open(f"{where}/mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    pieces = []
    try:
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
    finally:
        os.close(fd)
    return os.fsdecode(b"".join(pieces))


def top(entries: tuple[MountEntry, ...], path: str) -> MountEntry | None:
    """The mount a walk to exactly `path` ends on, or None where nothing visible is mounted.

    What another mount hides, at `path` or above it, is not visible.
    """
    passed = way(entries, path)
    return passed[-1] if passed and passed[-1].target == path else None


def way(entries: tuple[MountEntry, ...], path: str) -> list[MountEntry]:
    """The mounts that a walk to `path` leads through, from / on."""
    names = [path[:at] for at, c in enumerate(path) if c == "/" and at]
    stops = dict.fromkeys(["/", *names, path])
    near = [entry for entry in entries if entry.target in stops]
    ids = {entry.id for entry in near}
    here = next((e for e in near if e.target == "/" and e.parent not in ids - {e.id}), None)
    at = {(entry.parent, entry.target): entry for entry in near if entry is not here}
    passed: dict[str, MountEntry] = {}
    for stop in stops:
        while here and (above := at.pop((here.id, stop), None)):
            here = above
        if here and here.target == stop:
            passed[stop] = here
    return list(passed.values())
