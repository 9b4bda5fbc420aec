"""Who mounted and who unmounted, by fanotify(7) of this mount namespace (since Linux 6.14).

It is read when the table has changed, and wakes nobody by itself. Of a process that has ended
the kernel knows the number alone, and mount(8) ends within a millisecond: then so do we.
"""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

FAN_CLOEXEC = 0x01
FAN_NONBLOCK = 0x02
FAN_REPORT_MNT = 0x4000
FAN_MARK_ADD = 0x01
FAN_MARK_MNTNS = 0x110
FAN_MNT_ATTACH = 0x0100_0000
FAN_MNT_DETACH = 0x0200_0000
FAN_Q_OVERFLOW = 0x4000
FAN_EVENT_INFO_TYPE_MNT = 7

_METADATA = struct.Struct("=IBBHQii")  # struct fanotify_event_metadata
_INFO = struct.Struct("=BBH4xQ")  # struct fanotify_event_info_mnt

_libc = ctypes.CDLL(None, use_errno=True)


class Act(NamedTuple):
    """A mount, by its unique id, was attached or detached by a process (0: not known)."""

    attached: bool
    mount: int
    pid: int


class Authors:
    """`take` tells nothing where the kernel does not. `lost` is whether some acts were too many
    to be told the last time.
    """

    def __init__(self) -> None:
        self.lost = False
        self._fd = -1
        fd: int = _libc.fanotify_init(FAN_REPORT_MNT | FAN_CLOEXEC | FAN_NONBLOCK, 0)
        if fd < 0:
            return
        with open("/proc/self/ns/mnt", "rb", buffering=0) as namespace:
            mask = ctypes.c_uint64(FAN_MNT_ATTACH | FAN_MNT_DETACH)
            flags = FAN_MARK_ADD | FAN_MARK_MNTNS
            if _libc.fanotify_mark(fd, flags, mask, namespace.fileno(), None):
                os.close(fd)
            else:
                self._fd = fd

    @property
    def available(self) -> bool:
        return self._fd >= 0

    def close(self) -> None:
        if self.available:
            os.close(self._fd)
            self._fd = -1

    def take(self) -> list[Act]:
        """What was done since the last call, in order."""
        found: list[Act] = []
        self.lost = False
        with suppress(BlockingIOError):
            while self.available:
                found += self._acts(os.read(self._fd, 65536))
        return found

    def _acts(self, data: bytes) -> Iterator[Act]:
        while data:
            length, _, _, header, mask, _, pid = _METADATA.unpack_from(data)
            if mask & FAN_Q_OVERFLOW:
                self.lost = True
            else:
                kind, _, _, mount = _INFO.unpack_from(data, header)
                if kind == FAN_EVENT_INFO_TYPE_MNT:
                    yield Act(bool(mask & FAN_MNT_ATTACH), mount, pid)
            data = data[length:]
