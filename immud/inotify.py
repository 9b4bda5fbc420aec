"""inotify(7), which the standard library has not."""

import ctypes
import os
import struct
from collections.abc import Iterator

IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_ONLYDIR = 0x1000000
IN_ISDIR = 0x40000000

_EVENT = struct.Struct("iIII")
"""struct inotify_event of inotify(7), without the name."""

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """One instance; `fd` is readable when there is something to take."""

    def __init__(self) -> None:
        self.fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    def add(self, path: str, mask: int) -> int:
        """Watch `path`; the number its events come with, the same as before where it is watched
        already, or -1 where it is not there.
        """
        watch: int = _libc.inotify_add_watch(self.fd, os.fsencode(path), mask)
        return watch

    def take(self) -> Iterator[tuple[int, int, str]]:
        """Watch, mask and name of each event since the last call.

        A watch below 0 says that events were lost.
        """
        while True:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                return
            while data:
                watch, mask, _cookie, size = _EVENT.unpack_from(data)
                name = data[_EVENT.size : _EVENT.size + size].rstrip(b"\0")
                yield watch, mask, os.fsdecode(name)
                data = data[_EVENT.size + size :]

    def close(self) -> None:
        os.close(self.fd)
