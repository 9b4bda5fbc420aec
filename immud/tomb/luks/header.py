"""The header of a drive, copied once: what is checked is then what is opened with.

A drive that answers twice may answer differently. So nothing of the header is
asked of the drive itself: its first bytes are copied, the library reads the
copy, and what that says is in use of the key slots is copied after it.
Plain calls that may block: for children (`immud.child.in_child`).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from immud.errors import ImmudError
from immud.tomb.luks import libcryptsetup

DIRECTORY = "/run/immud/header"

# Two copies of the metadata, as large as nearly all are and as large as they may be (LUKS2
# On-Disk Format Specification, 2.1), and the end of all key slots with room to spare.
_COMMON, _LARGEST = 2 << 14, 2 << 22
_ROOM = 256 << 20
# 32 key slots of half a megabyte: more would only fill the memory.
_SLOTS_LIMIT = 32 << 20


def path(name: str) -> str:
    """Where the copy for tomb `name` is: on a tmpfs, for root alone."""
    return f"{DIRECTORY}/{name}"


@contextmanager
def copied(device: str, name: str = "", *, keep: bool = False) -> Iterator["Copy"]:
    """A copy of the header on `device`, read and valid, gone at the end.

    It is at `path(name)`, without a name in no directory at all. With `keep` it stays
    there, unless the block fails. Raises OSError, ImmudError.
    """
    drive = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if name:
            where = path(name)
            to = _new(where)
        else:
            to = os.memfd_create("header", os.MFD_CLOEXEC)
            where = f"/proc/self/fd/{to}"
        try:
            os.ftruncate(to, _ROOM)
            with _loaded(drive, to, where, device) as header:
                yield Copy(header, drive, to, where)
        except BaseException:
            keep = False
            raise
        finally:
            os.close(to)
            if name and not keep:
                drop(name)
    finally:
        os.close(drive)


def rehearse() -> None:
    """Read a header that is none: the library, and that of its ciphers, are ready then."""
    to = os.memfd_create("header", os.MFD_CLOEXEC)
    try:
        os.ftruncate(to, _COMMON)
        with (
            suppress(libcryptsetup.Failed),
            libcryptsetup.header(f"/proc/self/fd/{to}", "nothing") as header,
        ):
            header.load()
    finally:
        os.close(to)


def drop(name: str) -> None:
    """Remove the copy for tomb `name`, if there is one."""
    with suppress(FileNotFoundError):
        os.unlink(path(name))


def _new(where: str) -> int:
    os.makedirs(DIRECTORY, 0o700, exist_ok=True)
    # What a killed run left may be open elsewhere: a new file, not the old one again.
    with suppress(FileNotFoundError):
        os.unlink(where)
    return os.open(where, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


@contextmanager
def _loaded(drive: int, to: int, where: str, device: str) -> Iterator[libcryptsetup.Header]:
    _copy(drive, to, 0, _COMMON)
    with libcryptsetup.header(where, device) as header:
        try:
            header.load()
            loaded = True
        except libcryptsetup.Failed:
            loaded = False
        if loaded:
            yield header
            return
    _copy(drive, to, 0, _LARGEST)
    with libcryptsetup.header(where, device) as header:
        try:
            header.load()
        except libcryptsetup.Failed as error:
            raise ImmudError(
                f"The LUKS header of {device} is damaged, in both its copies; if you have another: "
                f"cryptsetup luksHeaderRestore {device}"
            ) from error
        yield header


def _copy(drive: int, to: int, offset: int, length: int) -> None:
    while length:
        data = os.pread(drive, min(length, 1 << 20), offset)
        if not data:
            return
        os.pwrite(to, data, offset)
        offset, length = offset + len(data), length - len(data)


class Copy:
    """A copied header. `header` has read it; `path` is where others can."""

    def __init__(self, header: libcryptsetup.Header, drive: int, to: int, where: str) -> None:
        self.header, self.path = header, where
        self._drive, self._to = drive, to

    def complete(self) -> None:
        """Copy the key slots too: with them it can be opened."""
        areas = list(self.header.slots())
        if sum(length for _, length in areas) > _SLOTS_LIMIT:
            raise ImmudError("The key slots of the volume are larger than any should be.")
        for offset, length in areas:
            _copy(self._drive, self._to, offset, length)
        metadata, slots = self.header.sizes()
        os.ftruncate(self._to, 2 * metadata + slots)
