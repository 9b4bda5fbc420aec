"""Letting the rest of the boot go first while phase 2 imports its libraries.

That is as much work as all else immud does at boot, at the moment when everything that waited
for READY=1 starts, and nobody waits for its end.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

NICE = 19  # the most; there is time until the bus, or a drive, is there


@contextmanager
def background() -> Iterator[None]:
    """Take what others leave of the processors, for as long as the block runs."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    _niceness(NICE)
    try:
        yield
    finally:
        _niceness(before)


def _niceness(value: int) -> None:
    """Set the niceness, inside the session and of the session.

    Every service has a session of its own, and to the scheduler that is one group: where there
    are such groups, the niceness of a process counts only inside it (sched(7), autogroups).
    """
    os.setpriority(os.PRIO_PROCESS, 0, value)
    try:
        with open("/proc/self/autogroup", "w", encoding="ascii") as file:
            file.write(str(value))
    except OSError:
        pass  # a kernel without autogroups
