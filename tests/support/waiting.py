"""Waiting for what the kernel does in its own time."""

import time
from collections.abc import Callable


def until(true: Callable[[], bool], timeout: float = 10.0) -> None:
    """Fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, f"not true within {timeout} s"
        time.sleep(0.01)
