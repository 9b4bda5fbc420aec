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
from immud.tomb import loops, secret
from immud.tomb.fs import beneath, check, mounts
from immud.tomb.fs.filesystems import unwritten

# udev's rules look here: what is in a tomb's file is no desktop's business.
LOOPS = "/run/immud/loop"

# nosuid and nodev hold anyway.
_OPTIONS = ["noexec", "noatime"]
# The kernel writes what is in a log to its place, read-only or not.
_REPLAYED = ["ro", *_OPTIONS]
_FILE = os.O_NONBLOCK | os.O_NOCTTY


def attach(devnode: str, fstype: str, path: str, readonly: bool = False) -> str:
    """The node of a loop device on the file `path` of the file system on `devnode`.

    With `readonly`, or where the drive is, nothing is written to either, and no log of the
    drive replayed. It is open in this process, and gone with it where nobody else opens it.
    Raises ImmudError, OSError.
    """
    _forget_loops()
    tree = _mounted(devnode, fstype, _unwritten(devnode, fstype) if readonly else _OPTIONS)
    try:
        unread = readonly and bool(unwritten(fstype))
        file, readonly = _open(tree, devnode, path, unread=unread)
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


def _unwritten(devnode: str, fstype: str) -> list[str]:
    """The options with which the kernel writes nothing to a drive, not even to put it right.

    Raises ImmudError where it would in spite of them.
    """
    if check.would_be_tidied(fstype, devnode):
        raise ImmudError(
            f"{devnode} was pulled while it was written to, and the kernel may finish deleting "
            "files on it even to read it; open it to be written to, or, so that nothing is until "
            f"it is plugged in again, run: blockdev --setro {devnode}; then try again."
        )
    return ["ro", *unwritten(fstype), *_OPTIONS]


def _mounted(devnode: str, fstype: str, options: list[str]) -> int:
    """The file system on `devnode` as a mount that is nowhere, read-only where said or needed.

    What a desktop has mounted already is shared with it, whatever the options, and
    the kernel shares what is writable with nobody who says it is not (EBUSY): then the
    attribute of the mount has to do. Where nothing can be written, no log can be replayed.
    """
    readonly = "ro" in options
    try:
        tree = mounts.build(devnode, fstype, options)
    except ImmudError as error:
        number = error.__cause__.errno if isinstance(error.__cause__, OSError) else 0
        if number == errno.EBUSY:
            options = _OPTIONS if readonly else _REPLAYED
        elif number in (errno.EROFS, errno.EACCES):
            options = _unwritten(devnode, fstype)
        else:
            raise
        tree = mounts.build(devnode, fstype, options)
    if readonly:
        kernel.mount_setattr("", set_=kernel.MOUNT_ATTR_RDONLY, dir_fd=tree)
    return tree


def _open(tree: int, devnode: str, path: str, *, unread: bool) -> tuple[int, bool]:
    """A descriptor of a tomb's file, and whether it can only be read."""
    for flags, readonly in ((os.O_RDWR, False), (os.O_RDONLY, True)):
        try:
            fd = beneath.open_beneath(tree, path, flags | _FILE)
        except OSError as error:
            if error.errno == errno.EROFS and not readonly:
                continue
            raise _unusable(devnode, path, error, unread=unread) from error
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd, readonly
        os.close(fd)
        break
    raise ImmudError(f"{path} on {devnode} is not a regular file, and so not a tomb.")


def read_key(devnode: str, fstype: str, path: str, readonly: bool = False) -> bytes:
    """What is in a key file on a drive, which is looked at only for this.

    With `readonly` nothing is written to the drive. Without it, its log is replayed, but only
    where the key cannot be had otherwise: somebody who needs their tomb has nothing from a
    message. Whose file it is does not matter: who holds the drive holds the key, and FAT
    has no owners. Raises ImmudError.
    """
    secret.conceal()
    logged = bool(unwritten(fstype))
    try:
        return _read(devnode, fstype, path, _unwritten(devnode, fstype), unread=logged)
    except ImmudError:
        if readonly or not logged:
            raise
    return _read(devnode, fstype, path, _REPLAYED)


def _read(
    devnode: str, fstype: str, path: str, options: list[str], *, unread: bool = False
) -> bytes:
    tree = _mounted(devnode, fstype, options)
    try:
        return beneath.read(tree, path, secret.LARGEST)
    except OSError as error:
        raise _unusable(devnode, path, error, unread=unread) from error
    finally:
        os.close(tree)


def read_local_key(path: str) -> bytes:
    """What is in a key file of this system. Raises ImmudError where it is not root's alone."""
    secret.conceal()
    with secret.key_file(path) as (buffer, length):
        return buffer.raw[:length]


def _unusable(devnode: str, path: str, error: OSError, *, unread: bool) -> ImmudError:
    why = "is not there" if error.errno == errno.ENOENT else f"cannot be used: {error.strerror}"
    log = (
        " If the drive was pulled while it was written to, that may be in its log, which was not "
        "looked at, so that nothing is written; mount it once, and unmount it, then try again."
    )
    return ImmudError(f"{path} on {devnode} {why}.{log if unread else ''}")
