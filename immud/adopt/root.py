"""The root file system itself, without anything mounted on it, and writable.

Binds make an exchange of /home and /var/home fail with EXDEV, a read-only /
makes it fail with EROFS. Both belong to mounts, not to the file system: a
detached clone of the one mount at / has neither.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from immud.adopt.facts import parent
from immud.early import kernel
from immud.errors import Busy, ImmudError


@contextmanager
def open_root(*, lock: bool = True) -> Iterator[int]:
    """A descriptor of the clone; paths relative to it never cross into another file system.

    With `lock` it is held by one process at a time: raises Busy where another has it.
    """
    try:
        fd = kernel.open_tree("/", kernel.OPEN_TREE_CLONE)
    except OSError as error:
        raise _impossible(error) from error
    try:
        # Private, so that nothing mounted meanwhile shows up in the clone.
        try:
            kernel.mount_setattr(
                "", clear=kernel.MOUNT_ATTR_RDONLY, propagation=kernel.MS_PRIVATE, dir_fd=fd
            )
        except OSError as error:
            raise _impossible(error) from error
        if lock:
            with locked(fd):
                yield fd
        else:
            yield fd
    finally:
        os.close(fd)


@contextmanager
def locked(root: int) -> Iterator[None]:
    """Hold the lock that keeps two adoptions apart. Raises Busy."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy("another immud adopt or release is running: wait for it") from error
        # A program that outlives us goes on writing to a copy: it has the lock for as long.
        os.set_inheritable(fd, True)
        yield
    finally:
        os.close(fd)


def _impossible(error: OSError) -> ImmudError:
    if error.errno == errno.EPERM:
        return ImmudError("only root can do this: run it with sudo")
    if error.errno == errno.ENOSYS:
        return ImmudError(
            "this needs mount_setattr(2), which Linux has since 5.12: boot a newer kernel"
        )
    return ImmudError(f"a clone of / could not be made: {error.strerror}")


def at(root: int, path: str) -> tuple[str, int | None]:
    """The name of `path` and what that is relative to, as system calls take them.

    In the clone, unless what is mounted over its parent is another file system: in /run, or in a
    /var of its own.
    """
    head = parent(path)
    try:
        same = os.path.samestat(os.stat(head), os.stat(relative(head), dir_fd=root))
    except (FileNotFoundError, NotADirectoryError):
        same = False
    return (relative(path), root) if same else (path, None)


def own_etc(root: int) -> str:
    """A path of the root file system's own /etc; "" where that is the one that is shown."""
    _, fd = at(root, "/etc/.")
    return "" if fd is not None else f"/proc/self/fd/{root}/etc"


def flush(root: int, path: str) -> None:
    """fsync(2) of a directory: of what is mounted at `path`, where that is a mount point."""
    _, fd = at(root, f"{path.rstrip('/')}/.")
    sync_directory(relative(path) if fd is not None else path, fd)


def sync_directory(path: str, root: int | None = None) -> None:
    """fsync(2) of one, relative to `root` where that is given."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def relative(path: str) -> str:
    """`path` as the calls relative to the clone take it."""
    return path.lstrip("/") or "."
