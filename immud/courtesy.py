"""Who goes first: the rest of the boot while phase 2 imports its libraries, and then a person.

The imports are as much work as all else immud does at boot, at the moment when everything that
waited for READY=1 starts, and nobody waits for their end. For a tomb somebody waits, and udev may
have a thousand other drives to look at.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

NICE = 19  # the most; there is time until the bus, or a drive, is there
HASTE = -10  # nearly ten times the share of a program like any other (sched(7))

_hasty, _ordinary = 0, 0


@contextmanager
def background() -> Iterator[None]:
    """Take what others leave of the processors, for as long as the block runs."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    _niceness(NICE)
    try:
        yield
    finally:
        _niceness(before)


@contextmanager
def haste() -> Iterator[None]:
    """Take more of the processors than others, for as long as a block of this kind runs.

    What is started in it, does, too. For the one event loop.
    """
    global _hasty, _ordinary  # noqa: PLW0603 - the process has one priority
    if not _hasty:
        # An administrator may have given the service another.
        _ordinary = os.getpriority(os.PRIO_PROCESS, 0)
    _hasty += 1
    _hasten()
    try:
        yield
    finally:
        _hasty -= 1
        _hasten()


def _hasten() -> None:
    # Who may not is as fast as others.
    with suppress(PermissionError):
        _niceness(HASTE if _hasty else _ordinary)


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
