"""Passphrases and keys on their way to a program: in pipes and locked memory, nowhere else."""

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from immud.errors import ImmudError, UsageError
from immud.run import STDIN_LIMIT
from immud.tomb.unlock import check_key

_MCL_CURRENT, _MCL_FUTURE = 1, 2


def protect() -> None:
    """Keep this process out of swap and out of core dumps (mlockall(2), setrlimit(2))."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE):
        error = os.strerror(ctypes.get_errno())
        raise ImmudError(f"Memory could not be locked, so a passphrase could be swapped: {error}.")


def from_file(path: str) -> bytes:
    """The key in a file of root's own. Raises ImmudError."""
    check_key(path)
    with open(path, "rb") as file:
        return _checked(file.read(STDIN_LIMIT + 1), f"The key file {path}")


def from_fd(fd: int) -> bytes:
    """What can be read from a descriptor up to its end, without one line break that ends it."""
    data = bytearray()
    try:
        while len(data) <= STDIN_LIMIT and (piece := os.read(fd, STDIN_LIMIT + 1)):
            data += piece
    except OSError as error:
        raise UsageError(f"descriptor {fd} can't be read: {error.strerror}") from None
    return _checked(bytes(data).removesuffix(b"\n"), f"Descriptor {fd}")


def _checked(key: bytes, what: str) -> bytes:
    if not key:
        raise UsageError(f"{what} holds no key; nothing was done")
    if len(key) > STDIN_LIMIT:
        raise UsageError(f"{what} holds more than {STDIN_LIMIT} bytes, which is no key")
    return key


@contextmanager
def passed(key: bytes) -> Iterator[str]:
    """A path under which a program that root starts can read `key`, once.

    A pipe's pages are the kernel's and never swapped, as those of a memfd may be. Whoever
    opens it finds the end after the key: there is no writer left.
    """
    if len(key) > STDIN_LIMIT:
        raise UsageError(f"a key has at most {STDIN_LIMIT} bytes")
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(writing, key)
        os.close(writing)
        yield f"/proc/{os.getpid()}/fd/{reading}"
    finally:
        os.close(reading)
