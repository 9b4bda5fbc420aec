"""Copies across file systems, each grown in a hidden place, compared, and then moved to its name.

Reading and writing go through a clone of the root file system's mount, attached in a mount
namespace of this process for as long as that takes: in it nothing is mounted that would be taken
for part of a directory, and / is writable.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from immud.adopt import refuse, users
from immud.adopt.facts import parent
from immud.adopt.root import at, flush
from immud.adopt.steps import (
    Copy,
    Idle,
    MakeHidden,
    Place,
    RemoveHidden,
    SetAside,
    TakeBack,
    Unchanged,
)
from immud.atomic import sync_file_system
from immud.early import kernel
from immud.errors import Busy, ImmudError
from immud.make.copying import ROUNDS, differences, listed, rsync
from immud.private_mounts import private_mounts

CLONE = "/run/immud/adopting"
RECORD = "placed"
"""In the hidden directory, a link that contains the inode number of the copy that left it."""

Told = Callable[[str], None]


def make_hidden(root: int, step: MakeHidden) -> None:
    name, fd = at(root, step.path)
    os.mkdir(name, 0o700, dir_fd=fd)


def idle(step: Idle) -> None:
    """Raise Busy where somebody could write in the directory unnoticed."""
    refuse.used(step.path, users.of((step.path,)))


def copy(root: int, step: Copy, told: Told) -> None:
    """Copy and compare until both are the same. Raises ImmudError where they never are."""
    with clone_attached():
        source, place = seen(root, step.path), seen(root, step.place)
        with suppress(FileExistsError):
            os.mkdir(place, 0o700)
        for attempt in range(ROUNDS):
            asyncio.run(rsync(source, place, told, ("-c",) if attempt else ()))
            sync_file_system(place)
            told("comparing")
            differing = asyncio.run(differences(source, place, ("-c",)))
            if not differing:
                return
    raise Busy(
        f"These are written to all the time, and differ from their copies:\n{listed(differing)}\n"
        "Stop what writes there and run the same command again: it resumes from here."
    )


def unchanged(root: int, step: Unchanged) -> None:
    """Raise Busy where the copy is not, or will not stay, the same as its original."""
    refuse.used(step.path, users.of((step.path,)))
    with clone_attached():
        source, place = seen(root, step.path), seen(root, step.place)
        differing = asyncio.run(differences(source, place, ()))
    if differing:
        raise Busy(
            f"{step.path} changed while it was copied:\n{listed(differing)}\n"
            "Run the same command again: it resumes from here."
        )


def place(root: int, step: Place) -> None:
    """Record which directory it is, then move it; an empty directory in its place gives way."""
    old, new = at(root, step.place), at(root, step.path)
    record, fd = at(root, _record(parent(step.place)))
    inode = os.stat(old[0], dir_fd=old[1], follow_symlinks=False).st_ino
    with suppress(FileNotFoundError):
        os.unlink(record, dir_fd=fd)
    os.symlink(str(inode), record, dir_fd=fd)
    flush(root, parent(step.place))
    os.rename(old[0], new[0], src_dir_fd=old[1], dst_dir_fd=new[1])
    flush(root, parent(step.place))
    flush(root, parent(step.path))


def is_placed(root: int, hidden: str, path: str) -> bool:
    """Whether `path` is the copy that left the hidden directory."""
    record, fd = at(root, _record(hidden))
    name, there = at(root, path)
    try:
        inode = os.readlink(record, dir_fd=fd)
        return inode == str(os.stat(name, dir_fd=there, follow_symlinks=False).st_ino)
    except OSError:  # ENOENT, ENOTDIR, or EINVAL of something that is no link
        return False


def take_back(root: int, step: TakeBack) -> None:
    """Raises ImmudError where it is not that copy any more."""
    if not is_placed(root, parent(step.place), step.path):
        raise ImmudError(f"{step.path} is no longer the copy that immud made")
    _rename(root, step.path, step.place)


def set_aside(root: int, step: SetAside) -> None:
    _rename(root, step.path, step.kept)


def remove_hidden(root: int, step: RemoveHidden) -> None:
    record, fd = at(root, _record(step.path))
    with suppress(FileNotFoundError):
        os.unlink(record, dir_fd=fd)
    name, fd = at(root, step.path)
    os.rmdir(name, dir_fd=fd)
    flush(root, parent(step.path))


def _rename(root: int, old: str, new: str) -> None:
    """Within one file system, to a name that nothing has; on the disk afterwards."""
    (name, fd), (there, other) = at(root, old), at(root, new)
    if fd != other:
        raise ImmudError(f"{old} and {new} are not on one file system any more")
    kernel.renameat2(
        name, there, kernel.RENAME_NOREPLACE, dir_fd=kernel.AT_FDCWD if fd is None else fd
    )
    for head in dict.fromkeys((parent(new), parent(old))):
        flush(root, head)


def _record(hidden: str) -> str:
    return f"{hidden}/{RECORD}"


@contextmanager
def clone_attached() -> Iterator[None]:
    """In a mount namespace of our own, the root file system alone, writable, at CLONE."""
    with private_mounts():
        os.makedirs(CLONE, mode=0o700, exist_ok=True)
        tree = kernel.open_tree("/", kernel.OPEN_TREE_CLONE)
        try:
            kernel.mount_setattr(
                "",
                clear=kernel.MOUNT_ATTR_RDONLY,
                propagation=kernel.MS_PRIVATE,
                dir_fd=tree,
            )
            kernel.move_mount(tree, CLONE)
        finally:
            os.close(tree)
        yield


def seen(root: int, path: str) -> str:
    """`path` as programs find it in that namespace."""
    name, fd = at(root, path)
    return path if fd is None else f"{CLONE}/{name}"
