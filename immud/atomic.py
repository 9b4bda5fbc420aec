"""Small files that are either the old one or the new one, whatever happens in between."""

import ctypes
import os
from contextlib import suppress


def replace(path: str, data: bytes, mode: int) -> None:
    """Write beside `path`, flush, rename over it, and flush the rename. Raises OSError.

    The directory is made if it is missing. One name for the new file, so that no
    interrupted run leaves more than one behind.
    """
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    aside = os.path.join(directory, f".{os.path.basename(path)}.new")
    with suppress(FileNotFoundError):
        os.unlink(aside)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(aside, flags, mode), "wb") as file:
        # Whatever the umask.
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(aside, path)
    sync(directory)


def remove(path: str) -> bool:
    """Remove `path`, and make that last; False if there was no such file. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    sync(os.path.dirname(path))
    return True


def sync(directory: str) -> None:
    """fsync(2) of a directory: what was done to its entries outlives a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file_system(path: str) -> None:
    """syncfs(2) of the file system `path` is on; fsync of a directory does not write its files.

    Unlike sync(2) it does not wait for a slow stick that somebody copies to. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(fd):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(fd)
