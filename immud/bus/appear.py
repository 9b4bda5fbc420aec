"""Waiting for a path to appear, by inotify(7) and without looking again and again."""

import asyncio
import ctypes
import os

IN_CREATE = 0x100
IN_MOVED_TO = 0x80
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_ONLYDIR = 0x1000000
MASK = IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR

_libc = ctypes.CDLL(None, use_errno=True)


class Appearance:
    """Events in the directory of `path`, or in the nearest one above that exists."""

    def __init__(self, path: str) -> None:
        self._path = path
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
        directories = os.path.dirname(self._path).split("/")
        for depth in range(1, len(directories) + 1):
            directory = "/".join(directories[:depth]) or "/"
            if _libc.inotify_add_watch(self._fd, os.fsencode(directory), MASK) < 0:
                break

    def _readable(self) -> None:
        try:
            while os.read(self._fd, 65536):
                pass
        except BlockingIOError:
            pass
        self._arm()
        self._event.set()
