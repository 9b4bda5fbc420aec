"""Key material in a child: locked in memory, in no core dump, wiped after use."""

import ctypes
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from immud.errors import ImmudError

# What cryptsetup accepts for a key file (--keyfile-size-max).
LARGEST = 8 << 20

_PR_SET_DUMPABLE = 4
_libc = ctypes.CDLL(None, use_errno=True)

Buffer = ctypes.Array[ctypes.c_char]


def conceal() -> None:
    """No core dump of this process, and no debugger but root's (PR_SET_DUMPABLE of prctl(2))."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@contextmanager
def _buffer(size: int) -> Iterator[Buffer]:
    """`size` bytes that are not swapped out, and zeroes at the end."""
    buffer = ctypes.create_string_buffer(size)
    where, length = ctypes.c_void_p(ctypes.addressof(buffer)), ctypes.c_size_t(size)
    # Where a limit (RLIMIT_MEMLOCK) forbids it, the key is still wiped.
    _libc.mlock(where, length)
    try:
        yield buffer
    finally:
        ctypes.memset(buffer, 0, size)
        _libc.munlock(where, length)


@contextmanager
def held(data: bytes) -> Iterator[tuple[Buffer, int]]:
    """A passphrase as a buffer, and its length."""
    with _buffer(len(data) + 1) as buffer:
        ctypes.memmove(buffer, data, len(data))
        yield buffer, len(data)


@contextmanager
def key_file(path: str) -> Iterator[tuple[Buffer, int]]:
    """All of a key file as a buffer, and its length.

    Raises ImmudError where it is missing, or others could read or change it.
    """
    with _opened(path) as (fd, size), _buffer(size + 1) as buffer:
        length = 0
        view = memoryview(buffer).cast("B")
        while length < size and (count := os.readv(fd, [view[length:size]])):
            length += count
        view.release()
        yield buffer, length


@contextmanager
def _opened(path: str) -> Iterator[tuple[int, int]]:
    try:
        # Not blocking: a FIFO without a writer would wait for one.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ImmudError(f"The key file {path} cannot be used: {error.strerror}.") from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ImmudError(f"The key file {path} is not a regular file.")
        if found.st_uid != 0:
            raise ImmudError(
                f"The key file {path} belongs to user {found.st_uid}: chown root {path}"
            )
        if found.st_mode & 0o077:
            mode = f"{stat.S_IMODE(found.st_mode):04o}"
            raise ImmudError(f"Others may use the key file {path} (mode {mode}): chmod 0600 {path}")
        if not 0 < found.st_size <= LARGEST:
            raise ImmudError(f"The key file {path} has {found.st_size} bytes, which is no key.")
        yield fd, found.st_size
    finally:
        os.close(fd)


def check(path: str) -> None:
    """Raises ImmudError where a key file is missing, or others could read or change it."""
    with _opened(path):
        pass
