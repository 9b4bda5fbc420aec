"""Rewriting the metadata of a LUKS2 header, as somebody with a hex editor would."""

import hashlib
from pathlib import Path

AREA = 16384
_CHECKSUM = slice(448, 512)


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    """Replace `old` by `new`, of one length, in both copies of the metadata, with good checksums.

    The metadata has the size cryptsetup gives it, and a SHA-256 checksum.
    """
    assert len(old) == len(new)
    with path.open("r+b") as file:
        both = bytearray(file.read(2 * AREA))
        assert both.count(old) == 2
        both[:] = both.replace(old, new)
        check(both)
        file.seek(0)
        file.write(both)


def check(both: bytearray) -> None:
    """Put the right checksum into each of two copies."""
    for start in (0, AREA):
        area = both[start : start + AREA]
        area[_CHECKSUM] = bytes(64)
        area[_CHECKSUM] = hashlib.sha256(area).digest().ljust(64, b"\0")
        both[start : start + AREA] = area


def decipher(path: Path) -> None:
    """Have the header say that its data is not encrypted; every passphrase still fits it."""
    rewrite(path, b'"aes-xts-plain64","sector_size"', b'"cipher_null-ecb","sector_size"')
