"""A flood of udev's events, and what each of them costs the daemon: CPU, natively.

In a network namespace of its own, where nobody else listens, a process has what the daemon has:
udev's events by pyudev, the inventory of devices, and a configured tomb that asks of each change
what it means. A thousand volumes appear at once: they are sent in udev's own format, in portions
that the socket has room for, for what it drops is looked up all together, and cheaper. Their
entries in sysfs are files in a tmpfs. What is measured is user and system time, of the kernel's
side of the sending nothing.
"""

import asyncio
import ctypes
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from immud.early import kernel
from tests.benchmarks import crowd
from tests.benchmarks.figures import Figure
from tests.support.namespaces import namespaced

RUNS = 5
EVENTS = 1000
PORTION = 20

NETLINK_KOBJECT_UEVENT = 15
GROUP_UDEV = 2
UDEV = "/run/udev/control"
DISKS = Path("/sys/devices/virtual/block")
CLONE_NEWNET = 0x40000000
# libudev's own header before the properties, with hashes for the filter in the kernel's socket.
_HEADER = struct.Struct("=8s4s3I4s4s8s")
_MAGIC = 0xFEEDCAFE


def measure(runs: int = RUNS) -> list[Figure]:
    """`tomb.flood_ms_per_event` and `tomb.flood_delay`."""
    taken = [namespaced(_flood) for _ in range(runs)]
    return [
        Figure(
            "tomb.flood_ms_per_event",
            "CPU of the daemon's for one of a thousand events of udev's, natively",
            {"immud": taken},
            *("immud", "", "ms", 1.0),
            {"runs": runs, "events": EVENTS},
        ),
        *crowd.measure(runs),
    ]


def _flood() -> float:
    """In namespaces: milliseconds of CPU for each event."""
    prepare(EVENTS)
    return asyncio.run(_listen())


def prepare(count: int) -> None:
    """In a mount namespace: a network of its own, and that many volumes in sysfs."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    # libudev listens to udev only where there is one.
    kernel.mount("tmpfs", "/run", "tmpfs", 0)
    os.mkdir("/run/udev")
    Path(UDEV).touch()
    kernel.mount("tmpfs", str(DISKS), "tmpfs", 0)
    for number in range(count):
        (DISKS / f"flood{number}").mkdir()
        (DISKS / f"flood{number}" / "size").write_text("2048\n")


@contextmanager
def sender() -> Iterator[Callable[[bytes], None]]:
    """Sends what udev would, to all who listen."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT) as netlink:

        def send(data: bytes) -> None:
            netlink.sendto(data, (0, GROUP_UDEV))

        yield send


async def _listen() -> float:
    # Only here: the tests' own process is not to have what the daemon imports.
    from immud.jobs import Jobs  # noqa: PLC0415
    from immud.model import TombConfig  # noqa: PLC0415
    from immud.tomb.tombs import Tombs  # noqa: PLC0415
    from immud.watch.devices import DeviceEvent  # noqa: PLC0415
    from immud.watch.udev import UdevWatch  # noqa: PLC0415

    told: list[DeviceEvent] = []

    def device(event: DeviceEvent) -> None:
        told.append(event)
        tombs.device(event)

    watch = UdevWatch(device)
    tombs = Tombs(
        [TombConfig("flood", uuid="0-0", mount="/run/flood", absent="directory")],
        jobs=Jobs(lambda: None),
        changed=lambda: None,
        on_open=lambda _: None,
        on_closed=lambda _: None,
        lookup=watch.lookup,
        ended=watch.ended,
        managers=None,  # type: ignore[arg-type] # nothing is opened
    )
    watch.start()
    tombs.start()
    await asyncio.sleep(0.2)
    told.clear()
    spent = 0.0
    with sender() as send:
        for portion in _portions():
            for data in portion:
                send(data)
            before, wanted = time.process_time(), len(told) + len(portion)
            async with asyncio.timeout(10):
                while len(told) < wanted:
                    await asyncio.sleep(0)
            # What the tomb's own task has left to do.
            await asyncio.sleep(0)
            spent += time.process_time() - before
    assert len(told) == EVENTS
    await tombs.stop(close=False)
    watch.close()
    return spent / EVENTS * 1000


def _portions() -> Iterator[list[bytes]]:
    for first in range(0, EVENTS, PORTION):
        yield [message(volume(number)) for number in range(first, first + PORTION)]


def volume(number: int) -> Mapping[str, str]:
    """What udev has about one of the volumes."""
    name = f"flood{number}"
    return {
        "ACTION": "add",
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
