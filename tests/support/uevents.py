"""Uevents as udev sends them, forged: to all who listen to it in this network namespace."""

import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

DISKS = Path("/sys/devices/virtual/block")
NETLINK_KOBJECT_UEVENT = 15
GROUP_UDEV = 2
# libudev's own header before the properties, with hashes for the filter in the kernel's socket.
_HEADER = struct.Struct("=8s4s3I4s4s8s")
_MAGIC = 0xFEEDCAFE


@contextmanager
def sender() -> Iterator[Callable[[bytes], None]]:
    """Sends what udev would, to all who listen."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT) as netlink:

        def send(data: bytes) -> None:
            netlink.sendto(data, (0, GROUP_UDEV))

        yield send


def volume(number: int, action: str = "add", disk: str = "") -> Mapping[str, str]:
    """What udev has about one of the volumes: on `disk`, or on one that is not there."""
    name = disk or f"flood{number}"
    return {
        "ACTION": action,
        "SUBSYSTEM": "block",
        "DEVTYPE": "disk",
        "SEQNUM": f"{number + 1}",
        "DEVPATH": f"{str(DISKS).removeprefix('/sys')}/{name}",
        "DEVNAME": f"/dev/{name}",
        "DISKSEQ": f"{number + 1}",
        "MAJOR": "240",
        "MINOR": f"{number}",
        "USEC_INITIALIZED": "1",
        "ID_BUS": "usb",
        "ID_FS_TYPE": "crypto_LUKS",
        "ID_FS_USAGE": "crypto",
        "ID_FS_VERSION": "2",
        "ID_FS_UUID": f"5f0e4a0a-1b7c-4d1e-9d0c-{number:012}",
        "ID_FS_LABEL": "tomb",
        "ID_SERIAL": f"Flood_{number}",
        "ID_SERIAL_SHORT": f"{number}",
    }


def message(properties: Mapping[str, str], tag: str = "immud") -> bytes:
    """What udev sends of a block device that has these properties, and the tag, if any."""
    if tag:
        properties = {**properties, "TAGS": f":{tag}:", "CURRENT_TAGS": f":{tag}:"}
    data = b"".join(f"{name}={value}".encode() + b"\0" for name, value in properties.items())
    magic, subsystem = (struct.pack(">I", n) for n in (_MAGIC, _murmur(b"block")))
    size, bloom = _HEADER.size, struct.pack(">Q", _bloom(tag.encode()) if tag else 0)
    head = (b"libudev\0", magic, size, size, len(data), subsystem, bytes(4), bloom)
    return _HEADER.pack(*head) + data


def _bloom(tag: bytes) -> int:
    """The bits by which the filter in the kernel's socket knows a tag, as libudev has them."""
    value = _murmur(tag)
    return sum({1 << (value >> shift & 63) for shift in (0, 6, 12, 18)})


def _murmur(data: bytes) -> int:
    """MurmurHash2 with a seed of 0, as libudev has it."""
    factor, low = 0x5BD1E995, 0xFFFFFFFF
    value = len(data)
    while len(data) >= 4:
        piece = int.from_bytes(data[:4], "little") * factor & low
        value = (value * factor & low) ^ ((piece ^ piece >> 24) * factor & low)
        data = data[4:]
    if data:
        value = (value ^ int.from_bytes(data, "little")) * factor & low
    value = (value ^ value >> 13) * factor & low
    return value ^ value >> 15
