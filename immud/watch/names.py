"""Says when one of some paths is made, replaced or removed, by inotify(7)."""

import asyncio
import os
from collections.abc import Callable, Iterable

from immud.inotify import (
    IN_CREATE,
    IN_DELETE,
    IN_ISDIR,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_ONLYDIR,
    Inotify,
)

MASK = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR
SERVICES = "/sys/fs/cgroup/system.slice"


class NameWatch:
    """Tells `changed` on the running loop. What else happens in these directories is not told."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._inotify = Inotify()
        self._names: dict[int, set[str]] = {}
        asyncio.get_running_loop().add_reader(self._inotify.fd, self._readable)

    def want(self, paths: Iterable[str]) -> None:
        """Watch these paths. Asked again, it finds the directories that are there now: another
        may have been mounted or made in the place of one.
        """
        for path in paths:
            directory, _, name = path.rpartition("/")
            watch = self._inotify.add(directory or "/", MASK)
            if watch >= 0:
                self._names.setdefault(watch, set()).add(name)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._inotify.fd)
        self._inotify.close()

    def _readable(self) -> None:
        told = [
            watch < 0 or name in self._names.get(watch, ())
            for watch, _, name in self._inotify.take()
        ]
        if any(told):
            self._changed()


class ServiceWatch:
    """Tells `started` when a system service gets its control group, which it does as it starts.

    PID 1 would tell as well, but only who subscribes to all it has to say, for everybody.
    """

    def __init__(self, started: Callable[[], None], directory: str = SERVICES) -> None:
        self._started = started
        self._inotify = Inotify()
        self._slices: dict[int, str] = {}
        self._watch(directory)
        asyncio.get_running_loop().add_reader(self._inotify.fd, self._readable)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._inotify.fd)
        self._inotify.close()

    def _watch(self, directory: str) -> None:
        """Watch a slice, and those in it that are there already."""
        watch = self._inotify.add(directory, IN_CREATE | IN_ONLYDIR)
        if watch >= 0:
            self._slices[watch] = directory
            for name in os.listdir(directory):
                if name.endswith(".slice"):
                    self._watch(f"{directory}/{name}")

    def _readable(self) -> None:
        came = False
        for watch, mask, name in self._inotify.take():
            if watch < 0 or (mask & IN_ISDIR and name.endswith((".service", ".slice"))):
                came = True
            if name.endswith(".slice") and watch in self._slices:
                self._watch(f"{self._slices[watch]}/{name}")
        if came:
            self._started()
