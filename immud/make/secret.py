"""Passphrases and keys on their way to a program: in locked memory and nowhere else."""

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

from immud.errors import ImmudError, UsageError
from immud.tomb.secret import LARGEST, check, conceal

_MCL_CURRENT, _MCL_FUTURE = 1, 2


def protect() -> None:
    """Keep this process out of swap (mlockall(2)) and out of core dumps."""
    conceal()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE):
        error = os.strerror(ctypes.get_errno())
        raise ImmudError(f"Memory could not be locked, so a passphrase could be swapped: {error}.")


def from_file(path: str) -> bytes:
    """The key in a file of root's own. Raises ImmudError."""
    check(path)
    with open(path, "rb") as file:
        return file.read(LARGEST)


def from_fd(fd: int) -> bytes:
    """What can be read from a descriptor up to its end, without one line break that ends it."""
    data = bytearray()
    try:
        while len(data) <= LARGEST and (piece := os.read(fd, 65536)):
            data += piece
    except OSError as error:
        raise UsageError(f"descriptor {fd} cannot be read: {error.strerror}") from None
    key = bytes(data).removesuffix(b"\n")
    if not key:
        raise UsageError(f"descriptor {fd} holds no key; nothing was done")
    if len(key) > LARGEST:
        raise UsageError(f"descriptor {fd} holds more than {LARGEST} bytes, which is no key")
    return key


@contextmanager
def passed(key: bytes) -> Iterator[str]:
    """A path under which a program that root starts can read `key`, until the end.

    A memfd: systemd-cryptenroll wants to seek in it, which no pipe lets it. Its pages are
    mapped here, and so locked by `protect`.
    """
    fd = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, len(key))
        with mmap.mmap(fd, len(key)) as memory:
            memory[:] = key
            try:
                yield f"/proc/{os.getpid()}/fd/{fd}"
            finally:
                memory[:] = bytes(len(key))
    finally:
        os.close(fd)
