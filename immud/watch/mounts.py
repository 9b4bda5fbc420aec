"""Says when this namespace's mount table has changed (proc_pid_mountinfo(5)).

The file is always readable and announces a change as POLLPRI, which the loop's
readers do not speak: an epoll that waits for it alone is itself readable then.
It is never read here: what has changed is looked up by who wants to know.
"""

import asyncio
import os
import select
from collections.abc import Callable

GAP = 0.005
"""Seconds between two tellings, at least; and nine times what the first took, so that a storm
of changes costs a tenth of a processor where the table is long and has to be read whole."""


class MountWatch:
    """Calls `changed` on the running loop, at once and not again before a while has passed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._fd, select.EPOLLPRI)
        self._pause: asyncio.TimerHandle | None = None
        self._again = False

    def start(self) -> None:
        """Begin, and tell once."""
        # For good: an epoll that is added to another is polled then, and the kernel tells each
        # change once. What happened while nobody listened would be lost in that.
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._ready)
        self._ready()

    def close(self) -> None:
        if self._pause:
            self._pause.cancel()
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()
        os.close(self._fd)

    def _ready(self) -> None:
        # The poll takes note of the state it saw: before looking, so that nothing is missed.
        self._epoll.poll(0)
        if self._pause:
            self._again = True
        else:
            self._tell()

    def _tell(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            self._changed()
        finally:
            self._pause = loop.call_later(max(GAP, 9 * (loop.time() - began)), self._rested)

    def _rested(self) -> None:
        self._pause = None
        if self._again:
            self._again = False
            self._tell()
