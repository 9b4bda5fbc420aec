"""Drives on the network (NBD, nbd-client(8)): noticing that the server of one is gone.

While anybody has such a device open, and a mapping does, the kernel changes nothing in sysfs and
announces nothing when its connections end. It only says a word in its log. Whether that was the
end a read tells, because the kernel itself knows by then: where it was told to wait for another
connection (NBD_ATTR_DEAD_CONN_TIMEOUT), so does the read, and nothing has ended until it gives up.
"""

import asyncio
import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterable
from contextlib import suppress

from immud import log
from immud.child import in_child
from immud.errors import ImmudError
from immud.tomb.luks import dm
from immud.watch.devices import Device

# linux/nbd.h: forget the connections, and let every request fail that waits for one of them.
NBD_CLEAR_SOCK = 0xAB04
# A server that hangs is not gone: the read waits as all others do, and is not repeated; seconds.
PATIENCE = 3600.0
GONE = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ETIMEDOUT)


def is_remote(device: Device) -> bool:
    """Whether the drive is one whose end the kernel does not announce."""
    return name(device).startswith("nbd")


def name(device: Device) -> str:
    """What the kernel calls the whole drive, in its log too."""
    return os.path.basename(device.disk)


def has_ended(node: str) -> bool:
    """Whether the kernel gives up reading `node`. In a child: it may take as long as it likes."""
    try:
        with (
            open(node, "rb", buffering=0, opener=_direct) as drive,
            mmap.mmap(-1, mmap.PAGESIZE) as page,
        ):
            return not drive.readinto(page)
    except OSError as error:
        return error.errno in GONE


def _direct(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_DIRECT)


def cut(node: str, mappings: list[tuple[str, str]]) -> None:
    """In a child: let everything fail that waits for `node`, and leave mappings (name, number) on
    nothing.

    So the kernel has it that they stand on no drive any more, for whoever asks after a crash too.
    """
    fd = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Without, a request on its way when a netlink connection ended would sleep for ever.
        with suppress(OSError):
            fcntl.ioctl(fd, NBD_CLEAR_SOCK)
    finally:
        os.close(fd)
    for mapping, number in mappings:
        with suppress(OSError):
            dm.wipe(mapping, dm.sectors(number))


class Remote:
    """Looks at a drive when there is reason to, and tells `ended` when its server is gone.

    `standing` says which mappings of ours stand on a drive.
    """

    def __init__(
        self, standing: Callable[[Device], Iterable[dm.Mapping]], ended: Callable[[Device], None]
    ) -> None:
        self._standing = standing
        self._ended = ended
        self._doubted = set[str]()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def doubt(self, device: Device) -> None:
        """There is reason to think that the server is gone."""
        # What is said while it is being looked at may be newer than what the look shows.
        self._doubted.add(device.disk)
        if device.disk not in self._tasks:
            task = asyncio.get_running_loop().create_task(
                self._examine(device), name=f"examine {name(device)}"
            )
            self._tasks[device.disk] = task

    def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    async def _examine(self, device: Device) -> None:
        node = f"/dev/{name(device)}"
        try:
            while device.disk in self._doubted:
                self._doubted.discard(device.disk)
                with suppress(ImmudError, OSError):
                    if await in_child(has_ended, node, timeout=PATIENCE):
                        ours = [(m.name, m.number) for m in self._standing(device)]
                        await in_child(cut, node, ours)
                        log.get().warning(
                            f"The server of {node} is gone; connect to it again with nbd-client.",
                            device=node,
                        )
                        self._ended(device)
                        return
        finally:
            self._doubted.discard(device.disk)
            del self._tasks[device.disk]
