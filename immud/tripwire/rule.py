"""What is a breach: what is expected, held against what is seen. Pure.

Two things count. A protected path shows what this boot put there, read-only where it is to
be. And no other mount is a way around it: none is writable outside the places that are made
for mounts, none covers a part of a protected tree, and none shows such a tree writable
elsewhere, as a second mount of the same file system does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from immud.config.rules import within
from immud.early import mountinfo
from immud.early.mountinfo import MountEntry
from immud.early.plan import Row
from immud.early.steps import leads_to
from immud.model import Breach

# Where programs and people mount things on any day. Links of the layout are resolved in a mount
# table; their names are here for systems that have a directory or a mount in their place.
PLACES = (
    *("/proc", "/sys", "/dev", "/run", "/var", "/etc", "/tmp", "/sysroot/tmp"),
    *("/mnt", "/media", "/snap", "/boot", "/efi"),
)
NO_PRIVILEGES = ("nosuid", "nodev")


class Broken(NamedTuple):
    """One breach, as it is seen now. `namespace` is 0 for the system's own."""

    kind: Breach
    path: str
    expected: str
    actual: str
    namespace: int = 0


@dataclass(frozen=True, slots=True)
class Tree:
    """A mount of the layout. `dev`, `root` and `super_options` (`ro` or `rw`) are what phase 1
    saw, empty where it left no word of that.
    """

    path: str
    read_only: bool
    dev: str = ""
    root: str = ""
    super_options: str = ""

    @property
    def access(self) -> str:
        return "read-only" if self.read_only else "writable"


@dataclass(frozen=True, slots=True)
class Tomb:
    """An open tomb: where it is, and its file system's `major:minor`, empty if not known."""

    name: str
    path: str
    dev: str = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is to be. `links` are the rows whose links were in place at boot, `places` where
    mounts are nobody's business, `open` the writable parts of file systems that protected
    trees are on, as (dev, directory).
    """

    trees: tuple[Tree, ...] = ()
    links: tuple[Row, ...] = ()
    tombs: tuple[Tomb, ...] = ()
    places: tuple[str, ...] = PLACES
    open: tuple[tuple[str, str], ...] = ()

    def boring(self, dev: str, root: str, target: str) -> bool:
        """Whether a mount can be no breach, whatever its attributes become."""
        return (
            not self.is_way_in(dev, root)
            and any(within(target, place) for place in self.places)
            and all(tomb.dev != dev for tomb in self.tombs)
        )

    def is_way_in(self, dev: str, root: str, *, declared: bool = False) -> bool:
        """Whether writing to directory `root` of a file system may reach a protected tree.

        A part of such a tree may be declared writable, as snapper's snapshots are; never all.
        """
        frozen = [tree for tree in self.trees if tree.read_only and tree.dev == dev]
        if any(within(tree.root, root) for tree in frozen):
            return True
        inside = any(within(root, tree.root) for tree in frozen)
        return (inside and not declared) and not any(
            dev == device and within(root, directory) for device, directory in self.open
        )

    def covers(self, target: str) -> bool:
        """Whether a mount at `target` hides a part of a protected tree.

        Below / alone everything is, so that says nothing: there it matters who can write.
        """
        return any(
            within(target, tree.path) for tree in self.trees if tree.read_only and tree.path != "/"
        ) and not any(within(target, place) for place in self.places)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is. `mounts` are those visible at the paths of trees and tombs and at `others`,
    the places of all mounts that are not boring; `declared` are those of them a unit in
    systemd's own directories names. `links` map a path to (kind, content), as `observe.look`.
    """

    mounts: tuple[MountEntry, ...] = ()
    others: frozenset[str] = frozenset()
    declared: frozenset[str] = frozenset()
    links: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def judge(expected: Expected, seen: Seen) -> tuple[Broken, ...]:
    """Every breach in the system's own mount namespace, each path and kind once."""
    known = {tree.path for tree in expected.trees} | {tomb.path for tomb in expected.tombs} | {"/"}
    found = [
        *_trees(expected.trees, seen.mounts),
        *_links(expected.links, seen),
        *_tombs(expected.tombs, seen.mounts),
    ]
    for path in sorted(seen.others - known):
        entry = mountinfo.top(seen.mounts, path)
        if entry and (broken := judge_other(expected, entry, declared=path in seen.declared)):
            found.append(broken)
    return tuple(found)


def judge_other(
    expected: Expected, entry: MountEntry, *, declared: bool = False, namespace: int = 0
) -> Broken | None:
    """The breach a mount is that is none of the layout's own, if it is one.

    In another namespace, where a service has its tmpfs and its binds by design, only those
    count that lead into what is protected.
    """
    path, writable = entry.target, is_writable(entry)
    missing = _missing(entry)
    if missing and any(tomb.dev == entry.dev for tomb in expected.tombs if tomb.dev):
        wanted, actual = ",".join(NO_PRIVILEGES), f"{describe(entry)}, without {missing}"
        return Broken(Breach.TOMB, path, wanted, actual, namespace)
    if writable and expected.is_way_in(entry.dev, entry.root, declared=declared):
        wanted = f"{entry.dev} {entry.root} to be writable nowhere"
        return Broken(Breach.WAY_IN, path, wanted, describe(entry), namespace)
    if declared or namespace:
        return None
    if expected.covers(path):
        return Broken(Breach.OVERMOUNTED, path, "nothing mounted", describe(entry))
    if writable and not any(within(path, place) for place in expected.places):
        return Broken(Breach.NEW_MOUNT, path, "no writable mount", describe(entry))
    return None


def describe(entry: MountEntry) -> str:
    """A mount in a few words."""
    access = "writable" if is_writable(entry) else "read-only"
    shown = f"{entry.dev} {entry.root}"
    source = f" from {entry.source}" if entry.source and entry.source != entry.fstype else ""
    return f"{entry.fstype}{source} ({shown}), {access}"


def is_writable(entry: MountEntry) -> bool:
    """Whether both the mount and the file system take writes."""
    return not entry.read_only and "ro" not in entry.super_options.split(",")


def _trees(trees: Iterable[Tree], mounts: tuple[MountEntry, ...]) -> Iterable[Broken]:
    told: set[str] = set()
    for tree in trees:
        entry = mountinfo.top(mounts, tree.path)
        if entry is None:
            if tree.path != "/":
                wanted = f"mounted {tree.access}"
                yield Broken(Breach.UNMOUNTED, tree.path, wanted, "not mounted")
            continue
        if tree.dev and (entry.dev, entry.root) != (tree.dev, tree.root):
            wanted = f"{tree.dev} {tree.root}, {tree.access}"
            yield Broken(Breach.OVERMOUNTED, tree.path, wanted, describe(entry))
            continue
        if tree.read_only and not entry.read_only:
            yield Broken(Breach.WRITABLE, tree.path, "read-only", "writable")
        how = "ro" if "ro" in entry.super_options.split(",") else "rw"
        # One file system is often seen at several paths: the first stands for all.
        if tree.super_options and how != tree.super_options and entry.dev not in told:
            told.add(entry.dev)
            yield Broken(
                Breach.SUPERBLOCK,
                tree.path,
                f"file system {entry.dev} {tree.super_options}",
                f"file system {entry.dev} {how}",
            )


def _links(rows: Iterable[Row], seen: Seen) -> Iterable[Broken]:
    for row in rows:
        kind, content = seen.links.get(row.path, ("absent", ""))
        if kind == "empty" and _is_released(row.path, seen.mounts):
            continue
        actual = {
            "link": f"a link to {content}",
            "absent": "nothing there",
            "empty": "an empty directory",
            "other": "a file",
        }.get(kind)
        # A directory with something in it is one that was released, which is anybody's right.
        if actual and not (kind == "link" and leads_to(row, content)):
            yield Broken(Breach.LINK, row.path, f"a link to {row.target}", actual)


def _is_released(path: str, mounts: tuple[MountEntry, ...]) -> bool:
    """Whether a directory is mounted on itself, as `immud release` leaves one, empty or not."""
    base, entry = mountinfo.top(mounts, "/"), mountinfo.top(mounts, path)
    return bool(
        base and entry and (entry.dev, entry.root) == (base.dev, base.root.rstrip("/") + path)
    )


def _tombs(tombs: Iterable[Tomb], mounts: tuple[MountEntry, ...]) -> Iterable[Broken]:
    for tomb in tombs:
        entry = mountinfo.top(mounts, tomb.path)
        if entry and (missing := _missing(entry)):
            wanted = ",".join(NO_PRIVILEGES)
            yield Broken(Breach.TOMB, tomb.path, wanted, f"{describe(entry)}, without {missing}")


def _missing(entry: MountEntry) -> str:
    options = entry.options.split(",")
    return ",".join(word for word in NO_PRIVILEGES if word not in options)
