"""Waiting for a path to appear, by inotify(7) and without looking again and again."""

import asyncio

from immud.inotify import IN_CREATE, IN_MOVED_TO, IN_ONLYDIR, Inotify

MASK = IN_CREATE | IN_MOVED_TO | IN_ONLYDIR


class Appearance:
    """Notices `path`, or a directory on the way to it, being made or moved there.

    With another `mask` of inotify(7), what that says happening to it instead.
    """

    def __init__(self, path: str, mask: int = MASK) -> None:
        self._mask = mask
        self._parts = [part for part in path.split("/") if part]
        self._wanted: dict[int, str] = {}
        self._inotify = Inotify()
        self._event = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._inotify.fd, self._readable)
        self._arm()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._inotify.fd)
        self._inotify.close()

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
            watch = self._inotify.add(directory, self._mask)
            if watch < 0:
                break
            self._wanted[watch] = name

    def _readable(self) -> None:
        for watch, _, name in self._inotify.take():
            # Much else happens in /run. A watch below 0 says that events were lost.
            if watch < 0 or name == self._wanted.get(watch):
                self._event.set()
        self._arm()
