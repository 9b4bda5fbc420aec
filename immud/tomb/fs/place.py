"""Where a tomb, or what stands in for it, is mounted: found without following other people's links.

Root mounts there, and a directory on the way may be somebody's own: with a link in its place
a drive of theirs would be mounted over /etc.
"""

import os
import stat

from immud.early import kernel
from immud.errors import ImmudError
from immud.watch import table

_AS_IT_IS = kernel.RESOLVE_NO_SYMLINKS | kernel.RESOLVE_NO_MAGICLINKS
LINKS = 40
"""How many are followed, as by the kernel (path_resolution(7))."""
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def settled(path: str) -> str:
    """`path` with the links that root alone could have made followed, as the mount table has it.

    From the first directory on that others can change, or that a server may keep us waiting for,
    it is left as it is, links and all, for `opened` to refuse.
    """
    return _settled(path, LINKS)[0]


def _settled(path: str, links: int) -> tuple[str, bool]:
    """And whether that is all of it."""
    real, names = "/", [name for name in path.split("/") if name]
    for at, name in enumerate(names):
        step = os.path.join(real, name)
        if table.served(step):
            return os.path.join(step, *names[at + 1 :]), False
        try:
            link = os.readlink(step)
        except OSError:  # no link, or nothing yet
            real = step
            continue
        trusted = bool(links) and _only_roots(real)
        if trusted:
            there = os.path.normpath(os.path.join(real, link))
            real, trusted = _settled(there, links - 1)
        if not trusted:
            return os.path.join(step, *names[at + 1 :]), False
    return real, True


def _only_roots(directory: str) -> bool:
    """Whether nobody but root can put anything in it, or something else in its place."""
    while True:
        state = os.lstat(directory)
        if state.st_uid or state.st_mode & _OTHERS:
            return False
        if directory == "/":
            return True
        directory = os.path.dirname(directory)


def opened(path: str) -> int:
    """An O_PATH descriptor of the directory `path`, made with those above it where it is missing.

    Raises ImmudError where there is a link on the way, or something that is no directory.
    """
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        return kernel.openat2(kernel.AT_FDCWD, path, flags, resolve=_AS_IT_IS)
    except FileNotFoundError:
        above, name = os.path.split(path)
        parent = opened(above)
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
            return kernel.openat2(parent, name, flags, resolve=_AS_IT_IS)
        finally:
            os.close(parent)
    except OSError as error:
        raise ImmudError(
            f"Nothing is mounted at {path}: on the way is a link that others than root may have "
            f"made, or what is no directory; see: namei -l {path}"
        ) from error


def has_content(directory: int) -> bool:
    """Whether anything is in the directory of an O_PATH descriptor."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(fd) as inside:
            return any(inside)
    finally:
        os.close(fd)
