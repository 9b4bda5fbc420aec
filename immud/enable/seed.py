"""Making a source of /etc or /var ready: a copy of what is there, marked once it is whole.

Boot takes /etc and /var from elsewhere only where the marker says that the place is
meant, and is not the empty mount point of a drive that is missing.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

from immud.atomic import sync, sync_file_system
from immud.early import kernel, sources
from immud.early.elsewhere import MARKER, UNFINISHED
from immud.errors import ImmudError
from immud.make.copying import rsync
from immud.private_mounts import private_mounts

_PLACE = "/run/immud/seeding"
# Only this file system: no tomb, and nothing else that is mounted in it. What stands for a whole
# copy is no part of it: where /var is such a copy itself, it would be there before the rest.
_OPTIONS = ("-x", *(f"--exclude=/{name}" for name in (MARKER, UNFINISHED, "lost+found")))


@contextmanager
def opened(source: str, root: str = "/", *, readonly: bool) -> Iterator[int]:
    """A descriptor of the directory a source names, mounted aside if need be. Raises OSError."""
    place = _below(root, source)
    if place.startswith("/") and (readonly or _takes_writes(place)):
        tree = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        tree = _aside(place, readonly=readonly)
    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        os.close(tree)


@contextmanager
def _attached(source: str, root: str) -> Iterator[str]:
    """The path of the directory a source names, writable. Raises OSError.

    Where it has to be mounted for that, in a mount namespace of this process: to a program, what
    is attached nowhere has the path /, and rsync(1) would take it for that.
    """
    place = _below(root, source)
    if place.startswith("/") and _takes_writes(place):
        yield place
        return
    with private_mounts():
        os.makedirs(_PLACE, mode=0o700, exist_ok=True)
        tree = _aside(place, readonly=False)
        try:
            kernel.move_mount(tree, _PLACE)
        finally:
            os.close(tree)
        yield _PLACE


def _below(root: str, source: str) -> str:
    """A directory as it is seen from here; what names a file system stays as it is."""
    return os.path.abspath(os.path.join(root, source[1:])) if source[0] == "/" else source


def _takes_writes(place: str) -> bool:
    return not os.statvfs(place).f_flag & os.ST_RDONLY


def _aside(place: str, *, readonly: bool) -> int:
    tree = sources.tree(place, readonly=readonly)
    if place.startswith("/"):
        # On an immutable / only the mount is read-only; a clone of it need not be.
        kernel.mount_setattr("", clear=kernel.MOUNT_ATTR_RDONLY, dir_fd=tree)
    return tree


def is_marked(source: str, root: str = "/") -> bool:
    """Is the source meant to be used? Raises OSError where that cannot be found out."""
    with opened(source, root, readonly=True) as fd:
        return _whole(set(os.listdir(fd)))


def _whole(names: set[str]) -> bool:
    return MARKER in names and UNFINISHED not in names


def seed(where: str, source: str, root: str = "/") -> bool:
    """Copy `where` (/etc or /var) to its source and mark it; False if it was marked already.

    Goes on with a copy that was cut off, as if it began now; and makes the path inside a file
    system.
    Raises ImmudError where the source has something else in it, or the copy fails;
    OSError where it cannot be written.
    """
    holder, _, inside = ("", "", "") if source.startswith("/") else source.partition(":/")
    if inside:
        with opened(holder, root, readonly=False) as fd:
            os.makedirs(f"/proc/self/fd/{fd}/{inside}", 0o755, exist_ok=True)
    with _attached(source, root) as place:
        names = set(os.listdir(place)) - {"lost+found"}
        if _whole(names):
            return False
        if names and UNFINISHED not in names:
            raise ImmudError(
                f"{source} is not empty and has no file {MARKER}, so nothing was copied to it; "
                f"empty it, or make that file in it if this is {where} already"
            )
        unfinished = f"{place}/{UNFINISHED}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(unfinished, flags, 0o644))
        sync(place)
        more = _OPTIONS
        if UNFINISHED in names:
            # What a power cut left may be another file with the size and time of its original.
            more += ("--checksum",)
        if MARKER in names:
            # Versions before this one marked a copy that was not whole, and it may have been used.
            more += ("--filter=P *",)
        asyncio.run(rsync(_below(root, where), place, lambda _: None, more))
        # All of the copy is on the disk before the mark says that it is whole.
        sync_file_system(place)
        os.rename(unfinished, f"{place}/{MARKER}")
        sync(place)
    return True
