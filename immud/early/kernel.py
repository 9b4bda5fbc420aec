"""The kernel's mount interface, one function per system call.

Names are the kernel's own, so that `mount_setattr(2)` and its kin are the
documentation. Every function raises OSError with errno and the path it was
about. glibc wraps none of the newer calls in Debian 12, so they go through
syscall(2); the numbers are those of `asm-generic/unistd.h`, the same on every
architecture for all calls added since Linux 5.1.

Of ctypes only the half that is written in C is used, which is the same in every
Python 3 so far. It is documented nowhere; but the other half, with the modules it
needs, would take a tenth of the time in which the interpreter starts.
"""

import os
import sys
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_USE_ERRNO,
    CFuncPtr,
    _SimpleCData,
    dlopen,
    dlsym,
    get_errno,
)

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x00100000

MS_RDONLY = 0x01
MS_NOSUID = 0x02
MS_NODEV = 0x04
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000

LOCK_EX = 2
LOCK_NB = 4
LOCK_UN = 8

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442


class _Long(_SimpleCData):  # type: ignore[type-arg] # which only type checkers know
    """A number for a parameter that is wider than int: others are passed as one."""

    _type_ = "l"


class _Function(CFuncPtr):
    """A function of the C library. It takes numbers, bytes and None, and returns a number."""

    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Long


_libc = dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type] # the program itself, dlopen(3)
_syscall, _mount, _umount2, _renameat2, _setns, _unshare, _flock = (
    _Function(dlsym(_libc, name))
    for name in ("syscall", "mount", "umount2", "renameat2", "setns", "unshare", "flock")
)


def _struct(*fields: int) -> bytes:
    """A struct whose fields are all of the type __u64."""
    return b"".join(field.to_bytes(8, sys.byteorder) for field in fields)


def _fail(path: str) -> OSError:
    number = get_errno()
    return OSError(number, os.strerror(number), path)


def open_tree(path: str, flags: int = OPEN_TREE_CLONE, dir_fd: int = AT_FDCWD) -> int:
    """A descriptor of the tree at `path`; with OPEN_TREE_CLONE a detached copy of its mount."""
    fd: int = _syscall(_SYS_OPEN_TREE, dir_fd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC)
    if fd < 0:
        raise _fail(path)
    return fd


def move_mount(fd: int, target: str, dir_fd: int = AT_FDCWD) -> None:
    """Attach the mount `fd` at `target`; an empty one means `dir_fd` itself."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if target else MOVE_MOUNT_T_EMPTY_PATH)
    if _syscall(_SYS_MOVE_MOUNT, fd, b"", dir_fd, os.fsencode(target), flags):
        raise _fail(target)


def mount_setattr(
    path: str,
    *,
    set_: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
    dir_fd: int = AT_FDCWD,
    recursive: bool = False,
) -> None:
    """Change the attributes of one mount, or with `recursive` of the tree below it.

    An empty `path` means `dir_fd` itself, as with a detached tree.
    """
    attr = _struct(set_, clear, propagation, userns_fd)  # struct mount_attr
    flags = (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    if _syscall(_SYS_MOUNT_SETATTR, dir_fd, os.fsencode(path), flags, attr, _Long(len(attr))):
        raise _fail(path)


def fsopen(fstype: str) -> int:
    """A context for a new superblock of `fstype`."""
    fd: int = _syscall(_SYS_FSOPEN, fstype.encode(), FSOPEN_CLOEXEC)
    if fd < 0:
        raise _fail(fstype)
    return fd


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None) -> None:
    """Set one parameter of the context `fd`, or run `command` on it."""
    if _syscall(
        _SYS_FSCONFIG,
        fd,
        command,
        None if key is None else key.encode(),
        None if value is None else os.fsencode(value),
        0,
    ):
        raise _fail(f"{key}={value}" if value is not None else key or "fsconfig")


def fsmount(fd: int, attributes: int = 0) -> int:
    """The context's file system as a detached mount with MOUNT_ATTR_* `attributes`."""
    mount: int = _syscall(_SYS_FSMOUNT, fd, FSMOUNT_CLOEXEC, attributes)
    if mount < 0:
        raise _fail("fsmount")
    return mount


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str = "") -> None:
    """mount(2), for what the calls above cannot do on older kernels."""
    if _mount(
        None if source is None else os.fsencode(source),
        os.fsencode(target),
        None if fstype is None else fstype.encode(),
        _Long(flags),
        data.encode() or None,
    ):
        raise _fail(target)


def umount2(target: str, flags: int = 0) -> None:
    """Unmount the topmost mount at `target`; UMOUNT_NOFOLLOW is always set."""
    if _umount2(os.fsencode(target), flags | UMOUNT_NOFOLLOW):
        raise _fail(target)


def openat2(dir_fd: int, path: str, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open `path` below `dir_fd`, its walk restricted by RESOLVE_* flags."""
    how = _struct(flags | os.O_CLOEXEC, mode, resolve)  # struct open_how
    fd: int = _syscall(_SYS_OPENAT2, dir_fd, os.fsencode(path), how, _Long(len(how)))
    if fd < 0:
        raise _fail(path)
    return fd


def renameat2(old: str, new: str, flags: int, *, dir_fd: int = AT_FDCWD) -> None:
    """Rename below one directory; RENAME_EXCHANGE swaps the two atomically."""
    if _renameat2(dir_fd, os.fsencode(old), dir_fd, os.fsencode(new), flags):
        raise _fail(new)


def setns(fd: int, kind: int = CLONE_NEWNS) -> None:
    """Enter the namespace `fd`; for a mount namespace the caller must have one thread."""
    if _setns(fd, kind):
        raise _fail("setns")


def unshare(flags: int = CLONE_NEWNS) -> None:
    """Leave the shared namespaces named by `flags`."""
    if _unshare(flags):
        raise _fail("unshare")


def flock(fd: int, operation: int) -> None:
    """flock(2); fcntl would be one more library for phase 1 to load."""
    if _flock(fd, operation):
        raise _fail("flock")
