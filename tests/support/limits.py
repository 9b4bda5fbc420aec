"""pytest plugin: a limit on the time of each test, by its tier; building images is not counted.

`@pytest.mark.limit(seconds)` sets another. A test that is over it fails where it stands; when
even that cannot be (a call that does not return to Python), every stack is printed and the run
ends.
"""

import contextlib
import faulthandler
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.support import stages
from tests.support.process import HarnessError

LIMITS = {"unit": 60, "kernel": 120, "bus": 120, "boot": 120, "vm": 300, "long": 7200}
GRACE = 1800


class Overdue(HarnessError):
    """The test has used up its time."""


def tier_of(file: Path) -> str:
    """The directory below tests/ that `file` is in."""
    parts = file.parts
    return parts[len(parts) - 1 - parts[::-1].index("tests") + 1]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "limit(seconds): a limit of its own for this test's time")


@contextlib.contextmanager
def _limited(item: pytest.Item, phase: str) -> Iterator[None]:
    marker = item.get_closest_marker("limit")
    seconds = float(marker.args[0]) if marker else LIMITS[tier_of(item.path)]
    began, before_it = time.monotonic(), stages.spent()

    def over(_number: int, _frame: FrameType | None) -> None:
        left = began + seconds + stages.spent() - before_it - time.monotonic()
        if left > 0:
            signal.setitimer(signal.ITIMER_REAL, max(left, 1))
        else:
            raise Overdue(f"{phase} of {item.nodeid} took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=sys.__stderr__ or 2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with _limited(item, "the set-up"):
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with _limited(item, "the test"):
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    with _limited(item, "the end"):
        yield
