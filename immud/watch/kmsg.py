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


def about(record: bytes, devices: frozenset[str]) -> str:
    """Which of `devices` (such as `dm-0`) a record of the kernel is about, or nothing."""
    match = _RECORD.match(record)
    if match is None or int(match[1]) > _WORST:
        return ""
    words = re.findall(rb"[A-Za-z0-9-]+", match[2])
    return next((name for name in sorted(devices) if name.encode() in words), "")


class KernelLog:
    """Tells `heard` of a device the kernel has something to say about, on the running loop.

    Open only while there is a device to hear of. Where there is no such log, as in
    a container, nothing is told.
    """

    def __init__(self, heard: Callable[[str], None], path: str = KMSG) -> None:
        self._heard = heard
        self._path = path
        self._devices = frozenset[str]()
        self._fd = -1

    def listen(self, devices: frozenset[str]) -> None:
        """Hear of these devices from now on; of none, and the log is closed."""
        self._devices = devices
        if devices and self._fd < 0:
            with suppress(OSError):
                flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
                self._fd = os.open(self._path, flags)
                os.lseek(self._fd, 0, os.SEEK_END)
                asyncio.get_running_loop().add_reader(self._fd, self._read)
        elif not devices:
            self.close()

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        found = set[str]()
        while True:
            try:
                record = os.read(self._fd, 8192)
            except OSError as error:
                if error.errno == errno.EPIPE:
                    # Records were lost before we came to read them; any of them may have been it.
                    found |= self._devices
                    continue
                if error.errno != errno.EAGAIN:
                    self.close()
                break
            if not record:
                self.close()
                break
            found.add(about(record, self._devices))
        for device in sorted(found - {""}):
            self._heard(device)
