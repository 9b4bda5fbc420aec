"""How immud starts itself: the interpreter, the launcher, the clock of the boot, the kernel."""

import os
from time import clock_gettime_ns

PYTHON = "/usr/bin/python3"
LAUNCHER = "/usr/lib/immud/daemon"

_MONOTONIC = 1  # CLOCK_MONOTONIC of clock_gettime(2)


def command(*mode: str) -> list[str]:
    """The launcher in the given mode: isolated, without `site`, deaf to PYTHON* variables."""
    return [PYTHON, "-I", "-S", "-E", LAUNCHER, *mode]


def now() -> int:
    """CLOCK_MONOTONIC in microseconds, as systemd's own timestamps."""
    return clock_gettime_ns(_MONOTONIC) // 1000


def is_legacy() -> bool:
    """Whether the kernel is older than mount_setattr(2), or is to be treated so (a test)."""
    major, minor = os.uname().release.split(".")[:2]
    return "IMMUD_LEGACY" in os.environ or (int(major), int(minor.split("-")[0])) < (5, 12)
