"""Files on drives: a tomb in a file, and keys that are carried.

The drive's file system is never mounted anywhere: whoever needs a file has the
mount as a descriptor, and the kernel keeps the file system for as long as a file
of it is open. So a tomb's file needs nothing but its loop device, which is gone
with its last user, and whatever ends, even by kill -9, leaves nothing behind.
Everything here may sleep in the kernel: call it in a child.
"""

import errno
import os
import stat
from contextlib import suppress

from immud.early import kernel
from immud.early.sources import attach_loop
from immud.errors import ImmudError
from immud.tomb import beneath, loops, mounts, secret

# udev's rules look here: what is in a tomb's file is no desktop's business.
LOOPS = "/run/immud/loop"

# nosuid and nodev hold anyway.
_OPTIONS = ["noexec", "noatime"]
_FILE = os.O_NONBLOCK | os.O_NOCTTY


def attach(devnode: str, fstype: str, path: str, readonly: bool = False) -> str:
    """The node of a loop device on the file `path` of the file system on `devnode`.

    With `readonly`, or where the drive is, nothing is written to either. It is open in
    this process, and gone with it where nobody else opens it. Raises ImmudError, OSError.
    """
    _forget_loops()
    tree = _mounted(devnode, fstype, readonly=readonly)
    try:
        file, readonly = _open(tree, devnode, path)
    finally:
        os.close(tree)
    try:
        if other := loops.using(file):
            # Two file systems on one file would write over each other.
            raise ImmudError(
                f"{path} on {devnode} is in use already, as {other}; close it where it was opened "
                "(tomb close), then try again."
            )
        node, _ = attach_loop(
            f"/proc/self/fd/{file}", readonly=readonly, direct=True, announce=LOOPS
        )
    finally:
        os.close(file)
    return node


def _forget_loops() -> None:
    """Take back what was announced of loop devices that are gone."""
    with suppress(FileNotFoundError):
        for name in os.listdir(LOOPS):
            if not os.path.exists(f"/sys/block/{name}/loop"):
                os.unlink(f"{LOOPS}/{name}")


def _mounted(devnode: str, fstype: str, *, readonly: bool) -> int:
    """The file system on `devnode` as a mount that is nowhere, read-only where asked or needed.

    What a desktop has mounted already is shared with it, and the kernel shares
    what is writable with nobody who says it is not (EBUSY): then the attribute
    of the mount has to do.
    """
    ways = (["ro", *_OPTIONS], _OPTIONS) if readonly else (_OPTIONS, ["ro", *_OPTIONS])
    try:
        tree = mounts.build(devnode, fstype, ways[0])
    except ImmudError as error:
        number = error.__cause__.errno if isinstance(error.__cause__, OSError) else 0
        if number not in (errno.EBUSY, errno.EROFS, errno.EACCES):
            raise
        tree = mounts.build(devnode, fstype, ways[1])
    if readonly:
        kernel.mount_setattr("", set_=kernel.MOUNT_ATTR_RDONLY, dir_fd=tree)
    return tree


def _open(tree: int, devnode: str, path: str) -> tuple[int, bool]:
    """A descriptor of a tomb's file, and whether it can only be read."""
    for flags, readonly in ((os.O_RDWR, False), (os.O_RDONLY, True)):
        try:
            fd = beneath.open_beneath(tree, path, flags | _FILE)
        except OSError as error:
            if error.errno == errno.EROFS and not readonly:
                continue
            raise _unusable(devnode, path, error) from error
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd, readonly
        os.close(fd)
        break
    raise ImmudError(f"{path} on {devnode} is not a regular file, and so not a tomb.")


def read_key(devnode: str, fstype: str, path: str) -> bytes:
    """What is in a key file on a drive, which is looked at only for this.

    Whose file it is does not matter: who holds the drive holds the key, and FAT
    has no owners. Raises ImmudError.
    """
    secret.conceal()
    tree = _mounted(devnode, fstype, readonly=True)
    try:
        return beneath.read(tree, path, secret.LARGEST)
    except OSError as error:
        raise _unusable(devnode, path, error) from error
    finally:
        os.close(tree)


def read_local_key(path: str) -> bytes:
    """What is in a key file of this system. Raises ImmudError where it is not root's alone."""
    secret.conceal()
    with secret.key_file(path) as (buffer, length):
        return buffer.raw[:length]


def _unusable(devnode: str, path: str, error: OSError) -> ImmudError:
    why = "is not there" if error.errno == errno.ENOENT else f"cannot be used: {error.strerror}"
    return ImmudError(f"{path} on {devnode} {why}.")
