"""Making a source of /etc or /var ready: a copy of what is there, marked once it is whole.

Boot takes /etc and /var from elsewhere only where the marker says that the place is
meant, and is not the empty mount point of a drive that is missing.
"""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from immud.early import kernel, sources
from immud.early.elsewhere import MARKER, UNFINISHED
from immud.errors import ImmudError
from immud.run import run

# A day: a /var may be large and a drive slow, and ^C ends it at any time.
_TIMEOUT = 86400.0


@contextmanager
def opened(source: str, root: str = "/", *, readonly: bool) -> Iterator[int]:
    """A descriptor of the directory a source names, mounted aside if need be. Raises OSError."""
    if source.startswith("/"):
        tree = os.open(os.path.join(root, source[1:]), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if not readonly and os.fstatvfs(tree).f_flag & os.ST_RDONLY:
            # On an immutable / only the mount is read-only; a clone aside need not be.
            os.close(tree)
            tree = sources.tree(source, readonly=False)
            kernel.mount_setattr("", clear=kernel.MOUNT_ATTR_RDONLY, dir_fd=tree)
    else:
        tree = sources.tree(source, readonly=readonly)
    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        os.close(tree)


def is_marked(source: str, root: str = "/") -> bool:
    """Is the source meant to be used? Raises OSError where that can't be found out."""
    with opened(source, root, readonly=True) as fd:
        return _whole(set(os.listdir(fd)))


def _whole(names: set[str]) -> bool:
    return MARKER in names and UNFINISHED not in names


def seed(where: str, source: str, root: str = "/") -> bool:
    """Copy `where` (/etc or /var) to its source and mark it; False if it was marked already.

    Goes on with a copy that was cut off, and makes the path inside a file system.
    Raises ImmudError where the source has something else in it, or the copy fails;
    OSError where it can't be written.
    """
    holder, _, inside = ("", "", "") if source.startswith("/") else source.partition(":/")
    if inside:
        with opened(holder, root, readonly=False) as fd:
            os.makedirs(f"/proc/self/fd/{fd}/{inside}", 0o755, exist_ok=True)
    with opened(source, root, readonly=False) as fd:
        names = set(os.listdir(fd)) - {"lost+found"}
        if _whole(names):
            return False
        if names and UNFINISHED not in names:
            raise ImmudError(
                f"{source} is not empty and has no file {MARKER}, so nothing was copied to it; "
                f"empty it, or make that file in it if this is {where} already"
            )
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(UNFINISHED, flags, 0o644, dir_fd=fd))
        os.fsync(fd)
        asyncio.run(_copy(os.path.join(root, where[1:]), f"/proc/{os.getpid()}/fd/{fd}"))
        # All of the copy is on the disk before the mark says that it is whole.
        os.sync()
        os.rename(UNFINISHED, MARKER, src_dir_fd=fd, dst_dir_fd=fd)
        os.fsync(fd)
    return True


async def _copy(origin: str, into: str) -> None:
    """Copy what is in a directory, and only this file system: no tomb, and nothing else in it.

    What stands for a whole copy is no part of it: where /var is such a copy itself, it would
    be there before the rest. (cp, for rsync takes a mount that is attached nowhere for /.)
    """
    device = os.stat(origin).st_dev
    names: list[str] = []
    with os.scandir(origin) as entries:
        for entry in entries:
            if entry.name in (MARKER, UNFINISHED):
                continue
            if entry.is_dir(follow_symlinks=False) and os.lstat(entry.path).st_dev != device:
                # To cp, the file system of what it is told to copy is the one to stay on.
                place = os.path.join(into, entry.name)
                os.makedirs(place, exist_ok=True)
                _dress(entry.path, place)
            else:
                names.append(entry.path)
    if names:
        argv = ("cp", "-a", "--one-file-system", f"--target-directory={into}/.", "--")
        await run(*argv, *names, timeout=_TIMEOUT)
    _dress(origin, into)


def _dress(origin: str, copy: str) -> None:
    """Give a directory the owner, mode, times, ACLs and other attributes of another."""
    found = os.stat(origin)
    os.chown(copy, found.st_uid, found.st_gid)
    shutil.copystat(origin, copy)
