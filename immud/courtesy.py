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
    with _counted(1):
        yield


@contextmanager
def waiting() -> Iterator[None]:
    """In such a block: wait for people, or for a work that nobody else has to stand back for.

    What is started in it is like any other; so is the daemon, unless another block is in haste.
    """
    with _counted(-1):
        yield


@contextmanager
def _counted(change: int) -> Iterator[None]:
    _hurry(change)
    try:
        yield
    finally:
        _hurry(-change)


def _hurry(change: int) -> None:
    global _hasty, _ordinary  # noqa: PLW0603 - the process has one priority
    before, _hasty = _hasty > 0, _hasty + change
    if (_hasty > 0) == before:
        return
    if not before:
        # An administrator may have given the service another.
        _ordinary = os.getpriority(os.PRIO_PROCESS, 0)
    # Who may not is as fast as others.
    with suppress(PermissionError):
        _niceness(_ordinary if before else HASTE)


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
