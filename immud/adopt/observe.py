"""Look at a system before adopting: through the clone of / and as everybody sees it."""

import os
import stat
from contextlib import suppress
from dataclasses import replace

from immud.adopt import apparmor, copying, declared, gpt, users, views
from immud.adopt.facts import (
    AppArmor,
    Declared,
    Entry,
    Kind,
    Mounted,
    Observed,
    Parent,
    RowFacts,
    copy_of,
)
from immud.adopt.facts import beside as beside_of
from immud.adopt.facts import kept as kept_of
from immud.adopt.facts import parent as parent_of
from immud.adopt.facts import set_aside as set_aside_of
from immud.adopt.root import at, own_etc, relative
from immud.early import mountinfo, plan
from immud.early.mountinfo import MountEntry
from immud.early.plan import Row

_NAMES = {
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}


# What is mounted from these is gone, or another, after a boot.
_FLEETING = ("tmpfs", "ramfs", "overlay", "aufs", "rootfs")


def observe(root: int, table: tuple[Row, ...]) -> Observed:
    """The facts about every row of `table`; `root` is what `open_root` gives."""
    mounts = mountinfo.read()
    asked = declared.mounts(own_etc(root))
    automatic = {partition.where: partition for partition in gpt.partitions()}
    return Observed(
        rows=tuple(
            replace(_row(root, row, mounts, asked), partition=automatic.get(row.path))
            for row in table
        ),
        host_namespace=os.readlink("/proc/self/ns/mnt") == os.readlink("/proc/1/ns/mnt"),
        writable=not os.fstatvfs(root).f_flag & os.ST_RDONLY,
        apparmor=_apparmor(),
        views=views.others(tuple(row.path for row in table), mounts),
    )


def entry(path: str, root: int | None = None) -> Entry:
    """What is at `path`: in the clone `root`, or where everybody looks."""
    place = relative(path) if root is not None else path
    try:
        mode = os.stat(place, dir_fd=root, follow_symlinks=False).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Entry()
    if stat.S_ISLNK(mode):
        return Entry(Kind.LINK, content=os.readlink(place, dir_fd=root))
    if stat.S_ISDIR(mode):
        return Entry(Kind.DIRECTORY, empty=not _names(place, root))
    return Entry(Kind.OTHER, what=_NAMES.get(stat.S_IFMT(mode), "something else"))


def _names(place: str, root: int | None) -> list[str]:
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def _row(
    root: int, row: Row, mounts: tuple[MountEntry, ...], asked: tuple[Declared, ...]
) -> RowFacts:
    volatile = row.directory.startswith("/run/")
    path = entry(row.path, root)
    place = Parent("/run") if volatile else _parent(root, parent_of(row.directory), mounts, asked)
    # A directory in /run, or in a /var of its own, is not on the file system of the clone.
    there = None if volatile or not place.same else root
    directory = entry(row.directory, there)
    here = path.is_directory and not (path.empty and directory.is_directory)
    inside = (row.path, root) if here else (row.directory, there)
    fact = RowFacts(
        row=row,
        path=path,
        directory=directory,
        beside=entry(beside_of(row.path), root),
        path_parent=_parent(root, parent_of(row.path), mounts),
        directory_parent=place,
        missing=tuple(
            name for name in row.inside if entry(f"{inside[0]}/{name}", inside[1]).is_absent
        ),
        mounts=tuple(_mounted(m, row, mounts) for m in mounts if m.target == row.path),
        below=tuple(m.target for m in mounts if m.target.startswith(f"{row.path}/")),
        over=next((_mounted(m, row, mounts) for m in mounts if m.target == row.directory), None),
        declared=tuple(
            one
            for one in asked
            if one.where in (row.path, row.directory) or one.where.startswith(f"{row.path}/")
        ),
    )
    own_mount = any(not mount.own for mount in fact.mounts) or fact.over is not None
    return _across(root, fact, mounts) if fact.copies or own_mount else fact


def _across(root: int, fact: RowFacts, mounts: tuple[MountEntry, ...]) -> RowFacts:
    """What is of interest only where there are two file systems: /proc is looked through."""
    row = fact.row
    kept, aside, hidden = kept_of(row.path), set_aside_of(row.directory), beside_of(row.directory)
    old = entry(kept, root), entry(*at(root, aside))
    return replace(
        fact,
        kept=old[0],
        set_aside=old[1],
        hidden=entry(*at(root, hidden)),
        copied=entry(copy_of(row.path), root),
        placed=copying.is_placed(root, hidden, row.directory),
        inside=tuple(m.target for m in mounts if m.target.startswith(f"{row.directory}/")),
        users=users.of((row.path, row.directory)),
        keepers=users.of((kept, aside)) if any(e.is_directory for e in old) else (),
        holds=tuple(
            f"{path}/{name}"
            for path, seen in zip((kept, aside), old, strict=True)
            if seen.is_directory
            for name in sorted(_names(*at(root, path)))
        ),
    )


def _mounted(mount: MountEntry, row: Row, mounts: tuple[MountEntry, ...]) -> Mounted:
    """Whether `mount` shows a directory of the row itself, as an attached clone does."""
    base = mountinfo.top(mounts, "/")
    if base is None or mount.dev != base.dev:
        return Mounted(mount.source, mount.fstype)
    for path in (row.path, row.directory):
        if mount.root == base.root.rstrip("/") + path:
            return Mounted(mount.source, mount.fstype, own=True, of=path)
    return Mounted(mount.source, mount.fstype)


def _parent(
    root: int, path: str, mounts: tuple[MountEntry, ...], asked: tuple[Declared, ...] = ()
) -> Parent:
    """Prove that the clone's directory at `path` is the one everybody sees, or say why not."""
    steps = [path[:at] for at, c in enumerate(path) if c == "/" and at]
    for place in [*steps, path] if path != "/" else []:
        here = entry(place, root)
        if not here.is_directory:
            what = here.describe() if not here.is_absent else "absent"
            return Parent(path, same=False, why=f"{place} is {what} on the root file system")
    inner = os.stat(relative(path), dir_fd=root)
    outer = os.stat(path)
    read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    if (inner.st_dev, inner.st_ino) == (outer.st_dev, outer.st_ino):
        return Parent(path, device=inner.st_dev, read_only=read_only)
    mount = next((m for p in [path, *reversed(steps)] if (m := mountinfo.top(mounts, p))), None)
    why = (
        f"{mount.source} ({mount.fstype}) is mounted at {mount.target}"
        if mount
        else f"{path} is not the root file system's own directory"
    )
    unfit = _unfit(mount, read_only, asked) if mount else why
    return Parent(
        path,
        same=False,
        why=why,
        device=outer.st_dev,
        read_only=read_only,
        elsewhere=not unfit,
        unfit=unfit,
    )


def _unfit(mount: MountEntry, read_only: bool, asked: tuple[Declared, ...]) -> str:
    """Why data should not be copied to what is mounted there; "" where they can be."""
    where = mount.target
    if mount.fstype in _FLEETING:
        return f"what is mounted at {where} ({mount.fstype}) does not outlive a boot"
    if read_only:
        return f"what is mounted at {where} is read-only"
    if not (any(one.where == where for one in asked) or _var_of_plan() == where):
        return f"nothing mounts {where} again at the next boot: write it into /etc/fstab first"
    return ""


def _var_of_plan() -> str:
    """/var, where the boot plan mounts another one there."""
    with suppress(OSError, plan.PlanError), open(plan.PATH, "rb") as file:
        return "/var" if plan.decode(file.read()).var != "/var" else ""
    return ""


def _apparmor() -> AppArmor:
    if not os.path.isdir(apparmor.TUNABLES):
        return AppArmor()
    return AppArmor(
        installed=True,
        active=(_read(apparmor.ENABLED) or "").startswith("Y"),
        text=_read(apparmor.FILE),
    )


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return None
