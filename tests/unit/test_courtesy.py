"""Standing back while importing: in the session, of the session, and not a moment longer."""

import os
from pathlib import Path

import pytest

from immud.courtesy import NICE, background
from tests.support.namespaces import forked


def niceness() -> tuple[int, int]:
    """Of the process, and of its session where the kernel has autogroups."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    group = Path("/proc/self/autogroup")
    return own, int(group.read_text().split()[-1]) if group.exists() else own


def test_it_is_nice_inside_and_as_before_outside() -> None:
    def check() -> None:
        os.setsid()  # a service's; the tests' own session stays as it is
        with background():
            assert niceness() == (NICE, NICE)
        assert niceness() == (0, 0)
        with pytest.raises(KeyError), background():
            raise KeyError
        assert niceness() == (0, 0)

    forked(check)
