"""Handles of files: name_to_handle_at(2) and open_by_handle_at(2), one function each.

Not in `immud.early.kernel`, for phase 1 needs neither. Both raise OSError; EOPNOTSUPP where the
file system has none.
"""

import ctypes
import os

from immud.early.kernel import AT_EMPTY_PATH

_SIZE = 128  # MAX_HANDLE_SZ


class Handle(ctypes.Structure):
    """struct file_handle."""

    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * _SIZE),
    )


_libc = ctypes.CDLL(None, use_errno=True)


def of(fd: int) -> Handle:
    """The handle of what a descriptor is of."""
    handle, mount = Handle(handle_bytes=_SIZE), ctypes.c_int()
    if _libc.name_to_handle_at(fd, b"", ctypes.byref(handle), ctypes.byref(mount), AT_EMPTY_PATH):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return handle


def opened(mount: int, handle: Handle, flags: int) -> int:
    """A descriptor of what `handle` is of, on the very mount that `mount` is open on.

    That one may not be O_PATH.
    """
    fd: int = _libc.open_by_handle_at(mount, ctypes.byref(handle), flags | os.O_CLOEXEC)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd
