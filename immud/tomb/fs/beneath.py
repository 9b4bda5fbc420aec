"""Paths on a volume, walked so that nothing on it can lead the walk out of it.

Whoever can write to a tomb can put a link, a mount point or a device into any
path of it, and change it while it is walked: the kernel does the walk and the
check in one (openat2(2)). Relative paths only, from a descriptor of the volume's
top directory. All of these may sleep in the kernel: call them in a child.
"""

import errno
import os
import stat

from immud.early import kernel
from immud.early.kernel import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from immud.errors import ImmudError

_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
# A rename during a walk through `..` makes the kernel give up with EAGAIN; who renames for ever
# does it on purpose.
_TRIES = 16
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
# A pipe, a terminal or a device in place of a file is opened at once, and then refused.
_FILE = os.O_NONBLOCK | os.O_NOCTTY


def parts(path: str) -> list[str]:
    """The names of a relative path. Raises ImmudError for one that could lead upwards."""
    names = path.split("/")
    if not path or "\0" in path or any(name in ("", ".", "..") for name in names):
        raise ImmudError(
            f"{path!r} is not a path inside a tomb: write names with single slashes between "
            "them, no slash first or last, and no '.' or '..'."
        )
    return names


def open_beneath(
    top: int, path: str, flags: int = os.O_RDONLY, *, mode: int = 0, links: bool = False
) -> int:
    """A descriptor of `path` below the directory `top`, close-on-exec.

    With `links`, symbolic links are followed as long as they stay below `top`.
    Raises ImmudError where the way leads out of the volume, and OSError.
    """
    name = "/".join(parts(path))
    resolve = _INSIDE | (0 if links else RESOLVE_NO_SYMLINKS)
    tries = _TRIES
    while True:
        tries -= 1
        try:
            return kernel.openat2(top, name, flags, mode=mode, resolve=resolve)
        except OSError as error:
            if error.errno == errno.EAGAIN and tries:
                continue
            if error.errno in (errno.EXDEV, errno.ELOOP, errno.EAGAIN):
                what = "leads out of it" if links else "is, or goes through, a link"
                raise ImmudError(
                    f"{path!r} on the tomb {what}, which is not followed; "
                    "put a real file or directory there."
                ) from error
            raise


def read(top: int, path: str, limit: int = 65536, *, links: bool = False) -> bytes:
    """What is in the regular file `path`, which has at most `limit` bytes.

    Raises ImmudError where it is anything else or longer, and OSError.
    """
    fd = open_beneath(top, path, os.O_RDONLY | _FILE, links=links)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ImmudError(f"{path!r} on the tomb is not a regular file.")
        data = b""
        while len(data) <= limit and (piece := os.read(fd, limit + 1 - len(data))):
            data += piece
    finally:
        os.close(fd)
    if len(data) > limit:
        raise ImmudError(f"{path!r} on the tomb is longer than {limit} bytes.")
    return data


def make_directory(
    top: int, path: str, mode: int = 0o755, *, owner: tuple[int, int] | None = None
) -> int:
    """A descriptor of the directory `path`, made with all above it where they are missing.

    What is there already keeps its mode and owner; what is made gets `mode`, and
    `owner` (user, group), by default the owner of the directory it is made in.
    Raises ImmudError where something else is in the way, and OSError.
    """
    names = parts(path)
    at = os.dup(top)
    for number in range(len(names)):
        try:
            below = _enter(at, names[number], mode, owner, "/".join(names[: number + 1]))
        finally:
            os.close(at)
        at = below
    return at


def _enter(at: int, name: str, mode: int, owner: tuple[int, int] | None, path: str) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=at)
        made = True
    except FileExistsError:
        made = False
    try:
        fd = open_beneath(at, name, DIRECTORY)
    except NotADirectoryError as error:
        raise ImmudError(f"{path!r} on the tomb is not a directory.") from error
    if not made:
        return fd
    try:
        # Somebody may have put another one in its place; ours is empty, and still root's.
        if os.fstat(fd).st_uid != os.geteuid() or os.listdir(fd):
            raise ImmudError(f"{path!r} on the tomb was replaced while it was made; try again.")
        above = os.fstat(at)
        uid, gid = owner or (above.st_uid, above.st_gid)
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    except BaseException:
        os.close(fd)
        raise
    return fd
