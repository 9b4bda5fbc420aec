"""The device mapper, asked directly: an ioctl costs microseconds, dmsetup(8) a tenth of a second.

The interface is that of linux/dm-ioctl.h, version 4.0.0, which every kernel
since 2.6 speaks. Suspending and removing may block: call these in a child.
Everything raises OSError with the name of the mapping.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CONTROL = "/dev/mapper/control"
PREFIX = "immud-"

_HEADER = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
_TARGET = struct.Struct("=Q Q i I 16s")

_DEV_REMOVE = 4
_DEV_SUSPEND = 6
_TABLE_LOAD = 9
_TABLE_DEPS = 11
_TABLE_STATUS = 12
_TARGET_MESSAGE = 14

_STATUS_TABLE = 1 << 4
_SKIP_LOCKFS = 1 << 10
_NOFLUSH = 1 << 11
_SECURE_DATA = 1 << 15
_DEFERRED_REMOVE = 1 << 17


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping as sysfs shows it: `number` is `major:minor`, `uuid` begins with its maker."""

    name: str
    number: str
    uuid: str

    @property
    def devnode(self) -> str:
        return f"/dev/mapper/{self.name}"

    @property
    def nodes(self) -> tuple[str, str]:
        """All it is called in the mount table: btrfs says whichever it has heard last."""
        return self.devnode, f"/dev/dm-{self.number.rpartition(':')[2]}"


def mappings() -> tuple[Mapping, ...]:
    """All mappings there are. A machine without device mapper has none."""
    found = []
    for entry in sorted(os.listdir("/sys/block")):
        if entry.startswith("dm-"):
            where = f"/sys/block/{entry}"
            texts = [_text(f"{where}/{name}") for name in ("dm/name", "dev", "dm/uuid")]
            if texts[0] and texts[1]:
                found.append(Mapping(texts[0], texts[1], texts[2]))
    return tuple(found)


def node(name: str) -> str:
    """The device node of a mapping, which is there before udev has named it. Raises OSError."""
    for entry in os.listdir("/sys/block"):
        if entry.startswith("dm-") and _text(f"/sys/block/{entry}/dm/name") == name:
            return f"/dev/{entry}"
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def belongs(name: str, tomb: str) -> bool:
    """Whether a mapping called `name` is one of the tomb's: `immud-TOMB`, or with `.N` after it."""
    base, dot, count = name.removeprefix(PREFIX).partition(".")
    return name.startswith(PREFIX) and base == tomb and (not dot or count.isdigit())


def free_name(tomb: str, taken: set[str]) -> str:
    """The first name for a mapping of `tomb` that nothing, not even a stuck old one, has."""
    names = (f"{PREFIX}{tomb}" + (f".{count}" if count > 1 else "") for count in range(1, 1000))
    return next(name for name in names if name not in taken)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return ""


@contextmanager
def _control() -> Iterator[int]:
    fd = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def request(name: str, flags: int = 0, payload: bytes = b"", targets: int = 0) -> bytearray:
    """A `struct dm_ioctl` about `name`, its payload behind it and room for an answer."""
    size = max(16384, _HEADER.size + len(payload))
    head = _HEADER.pack(
        *(4, 0, 0), size, _HEADER.size, targets, 0, flags, 0, 0, 0, os.fsencode(name), b""
    )
    return bytearray(head + payload).ljust(size, b"\0")


def _ioctl(command: int, buffer: bytearray, name: str) -> bytearray:
    number = (3 << 30) | (_HEADER.size << 16) | (0xFD << 8) | command
    with _control() as fd:
        try:
            fcntl.ioctl(fd, number, buffer)
        except OSError as error:
            raise OSError(error.errno, error.strerror, name) from error
    return buffer


def dependencies(name: str) -> tuple[str, ...]:
    """The `major:minor` of every device the mapping's live table stands on."""
    answer = _ioctl(_TABLE_DEPS, request(name), name)
    start = _HEADER.unpack_from(answer)[4]
    (count,) = struct.unpack_from("=I", answer, start)
    numbers = struct.unpack_from(f"={count}Q", answer, start + 8)
    return tuple(f"{os.major(number)}:{os.minor(number)}" for number in numbers)


@dataclass(frozen=True, slots=True)
class Crypt:
    """What a live crypt mapping does, but for its key. `iv_offset` and `offset` are in sectors.

    The fields of the target are those of the kernel's dm-crypt documentation.
    """

    cipher: str
    iv_offset: int
    device: str
    offset: int
    sector_size: int = 512
    integrity: bool = False

    def __str__(self) -> str:
        authenticated = " and authenticated" if self.integrity else ""
        return (
            f"{self.cipher} in sectors of {self.sector_size} bytes from {self.offset} of "
            f"{self.device}, the first as {self.iv_offset}{authenticated}"
        )


def crypt(name: str) -> Crypt | None:
    """The live table of a mapping, None where it is not one crypt target.

    The kernel hands out the whole table, and for LUKS1 the key in it: the
    buffers on both sides are wiped.
    """
    buffer = _ioctl(_TABLE_STATUS, request(name, _STATUS_TABLE | _SECURE_DATA), name)
    try:
        start, targets = _HEADER.unpack_from(buffer)[4:6]
        kind = _TARGET.unpack_from(buffer, start)[4].rstrip(b"\0")
        if targets != 1 or kind != b"crypt":
            return None
        at = start + _TARGET.size
        return parse_crypt(buffer, at, buffer.index(0, at))
    finally:
        buffer[:] = bytes(len(buffer))


def parse_crypt(buffer: bytearray, start: int, end: int) -> Crypt:
    """A crypt target's parameters: the cipher, the key, which is stepped over, and the rest."""
    before = buffer.index(b" ", start)
    after = buffer.index(b" ", before + 1)
    iv, device, offset, *options = buffer[after + 1 : end].decode().split()
    size = next((o for o in options if o.startswith("sector_size:")), "sector_size:512")
    return Crypt(
        buffer[start:before].decode(),
        int(iv),
        device,
        int(offset),
        int(size.partition(":")[2]),
        any(o.startswith("integrity:") for o in options),
    )


def wipe(name: str, sectors: int) -> None:
    """Put a table in place that fails every access: the key leaves the kernel, nobody waits."""
    target = _TARGET.pack(0, max(sectors, 1), 0, _TARGET.size + 8, b"error") + bytes(8)
    _ioctl(_TABLE_LOAD, request(name, 0, target, targets=1), name)
    # Resuming swaps the tables; noflush, or it would wait for a drive that is gone.
    _ioctl(_DEV_SUSPEND, request(name, _NOFLUSH | _SKIP_LOCKFS), name)


def remove(name: str, *, deferred: bool = False) -> None:
    """Remove the mapping; EBUSY while it is open, unless `deferred` until it no longer is."""
    _ioctl(_DEV_REMOVE, request(name, _DEFERRED_REMOVE if deferred else 0), name)


def keep(name: str) -> None:
    """Take back a deferred removal that is still to come."""
    payload = struct.pack("=Q", 0) + b"@cancel_deferred_remove\0"
    _ioctl(_TARGET_MESSAGE, request(name, 0, payload), name)


def sectors(number: str) -> int:
    """The size of a block device, in units of 512 bytes; 0 where it is gone."""
    return int(_text(f"/sys/dev/block/{number}/size") or 0)
