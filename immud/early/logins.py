"""Logins at boot wait until it is known what people will find at their homes.

A lock that phase 1 takes and phase 2 lets go of, and the kernel where the daemon dies;
immud-fallback.service, which is before systemd-user-sessions.service, waits for it.
"""

import os

from immud.early import kernel

PATH = "/run/immud/logins"
VARIABLE = "IMMUD_LOGINS"


def hold() -> None:
    """Take the lock, for this process and what it becomes."""
    fd = os.open(PATH, os.O_RDWR | os.O_CREAT, 0o600)
    kernel.flock(fd, kernel.LOCK_EX | kernel.LOCK_NB)
    os.set_inheritable(fd, True)
    os.environ[VARIABLE] = str(fd)


def are_held() -> bool:
    """Whether logins wait for this process."""
    return VARIABLE in os.environ


def held() -> int | None:
    """The lock's descriptor that phase 1 left us, from now on for nobody else; None without."""
    number = os.environ.pop(VARIABLE, "")
    if not number:
        return None
    os.set_inheritable(int(number), False)
    return int(number)


def release(fd: int | None) -> None:
    """Let people log in."""
    if fd is not None:
        # Not only closed: a child that was forked meanwhile has it open too.
        kernel.flock(fd, kernel.LOCK_UN)
        os.close(fd)
