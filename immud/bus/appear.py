"""Waiting for a path to appear, by inotify(7) and without looking again and again."""

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterator

IN_CREATE = 0x100
IN_MOVED_TO = 0x80
IN_ONLYDIR = 0x1000000
MASK = IN_CREATE | IN_MOVED_TO | IN_ONLYDIR

EVENT = struct.Struct("iIII")
"""struct inotify_event of inotify(7), without the name."""

_libc = ctypes.CDLL(None, use_errno=True)


class Appearance:
    """Notices `path`, or a directory on the way to it, being made or moved there."""

    def __init__(self, path: str) -> None:
        self._parts = [part for part in path.split("/") if part]
        self._wanted: dict[int, bytes] = {}
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        self._event = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._readable)
        self._arm()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def forget(self) -> None:
        """What happened so far is known; `wait` is about what happens from now on."""
        self._event.clear()

    async def wait(self) -> None:
        """Return once something happened since `forget`."""
        await self._event.wait()

    def _arm(self) -> None:
        # From the top down: a directory made in between is seen by the watch above it.
        for depth, name in enumerate(self._parts):
            directory = "/" + "/".join(self._parts[:depth])
            watch = _libc.inotify_add_watch(self._fd, os.fsencode(directory), MASK)
            if watch < 0:
                break
            self._wanted[watch] = os.fsencode(name)

    def _readable(self) -> None:
        try:
            while data := os.read(self._fd, 65536):
                for watch, name in events(data):
                    # Much else happens in /run. A watch below 0 says that events were lost.
                    if watch < 0 or name == self._wanted.get(watch):
                        self._event.set()
        except BlockingIOError:
            pass
        self._arm()


def events(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Watch and name of each struct inotify_event."""
    while data:
        watch, _mask, _cookie, size = EVENT.unpack_from(data)
        yield watch, data[EVENT.size : EVENT.size + size].rstrip(b"\0")
        data = data[EVENT.size + size :]
