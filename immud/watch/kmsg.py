"""Listens to the kernel's log for a word about a device: a hint to look, and no more.

No other way tells of every file system that stops because of errors: FAN_FS_ERROR
of fanotify(7) and /sys/fs/ext4/*/errors_count are ext4's alone, and a superblock
that turns read-only does not wake who polls the mount table. /dev/kmsg wakes its
readers for each record and costs nothing in between (Documentation/ABI/testing/dev-kmsg).
"""

import asyncio
import errno
import os
import re
from collections.abc import Callable
from contextlib import suppress

KMSG = "/dev/kmsg"
# btrfs says "forced readonly" as mere information, and only then is it so.
_WORST = 6
# `priority,number,microseconds,flags;text`: the priority has the facility, the kernel's is 0.
_RECORD = re.compile(rb"([0-7]),[^;]*;(.*)")


Heard = Callable[[str], None]


def about(record: bytes, devices: frozenset[str]) -> frozenset[str]:
    """Which of `devices` (such as `dm-0`) a record of the kernel is about."""
    match = _RECORD.match(record)
    if match is None or int(match[1]) > _WORST:
        return frozenset()
    words = re.findall(rb"[A-Za-z0-9-]+", match[2])
    return frozenset(name for name in devices if name.encode() in words)


class KernelLog:
    """Tells who listens of a device the kernel has something to say about, on the running loop.

    Open only while there is a device to hear of. Where there is no such log, as in
    a container, nothing is told.
    """

    def __init__(self, path: str = KMSG) -> None:
        self._path = path
        self._listeners: dict[Heard, frozenset[str]] = {}
        self._fd = -1

    def listen(self, heard: Heard, devices: frozenset[str]) -> None:
        """`heard` is told of these devices from now on, and of no others any more."""
        self._listeners[heard] = devices
        if not any(self._listeners.values()):
            self._close()
        elif self._fd < 0:
            with suppress(OSError):
                flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
                self._fd = os.open(self._path, flags)
                os.lseek(self._fd, 0, os.SEEK_END)
                asyncio.get_running_loop().add_reader(self._fd, self._read)

    def leave(self, heard: Heard) -> None:
        """`heard` is told nothing any more."""
        self.listen(heard, frozenset())

    def _close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        devices = frozenset[str]().union(*self._listeners.values())
        found = set[str]()
        while True:
            try:
                record = os.read(self._fd, 8192)
            except OSError as error:
                if error.errno == errno.EPIPE:
                    # Records were lost before we came to read them; any of them may have been it.
                    found |= devices
                    continue
                if error.errno != errno.EAGAIN:
                    self._close()
                break
            if not record:
                self._close()
                break
            found |= about(record, devices)
        for heard, wanted in tuple(self._listeners.items()):
            for device in sorted(found & wanted):
                heard(device)
