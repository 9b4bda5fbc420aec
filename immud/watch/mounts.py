"""Says when this namespace's mount table has changed (proc_pid_mountinfo(5)).

The file is always readable and announces a change as POLLPRI, which the loop's
readers do not speak: an epoll that waits for it alone is itself readable then.
"""

import asyncio
import os
import select
from collections.abc import Callable

from immud.early import mountinfo
from immud.early.mountinfo import MountEntry


class MountWatch:
    """Tells `changed` the whole table whenever it is another one, on the running loop."""

    def __init__(self, changed: Callable[[tuple[MountEntry, ...]], None]) -> None:
        self._changed = changed
        self._fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._fd, select.EPOLLPRI)

    def start(self) -> None:
        """Begin, and tell the table as it is."""
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._ready)
        self._ready()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()
        os.close(self._fd)

    def _ready(self) -> None:
        # The poll takes note of the state it saw: before reading, so that nothing is missed.
        self._epoll.poll(0)
        self._changed(mountinfo.read())
