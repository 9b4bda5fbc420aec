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

    def start(self) -> None:
        """Begin, and tell once."""
        self._listen()
        self._ready()

    def close(self) -> None:
        if self._pause:
            self._pause.cancel()
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()
        os.close(self._fd)

    def _listen(self) -> None:
        self._pause = None
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._ready)

    def _ready(self) -> None:
        loop = asyncio.get_running_loop()
        # The poll takes note of the state it saw: before looking, so that nothing is missed.
        self._epoll.poll(0)
        loop.remove_reader(self._epoll.fileno())
        began = loop.time()
        try:
            self._changed()
        finally:
            # What happens meanwhile stays announced, and is told once at the end.
            self._pause = loop.call_later(max(GAP, 9 * (loop.time() - began)), self._listen)
