"""pytest plugin: a test that leaves a process, a mount or a loop device behind fails.

Only what this run made counts: processes are the descendants of pytest, and loop devices those
on files of the cache or of the test's own temporary directory.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import cache

PATIENCE = 3.0
"""Seconds a process or loop device may take to go, after its last user did."""


def _parents() -> dict[int, tuple[int, str]]:
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = Path(f"/proc/{entry}/stat").read_text(errors="replace")
        except OSError:
            continue
        head, _, rest = text.rpartition(")")
        state, parent = rest.split()[:2]
        if state != "Z":
            found[int(entry)] = (int(parent), head.partition("(")[2])
    return found


def processes() -> set[str]:
    """The descendants of this process that are alive: `pid (name)`."""
    parents = _parents()
    found = set()
    for pid, (_, name) in parents.items():
        above = pid
        while above in parents:
            above = parents[above][0]
            if above == os.getpid():
                found.add(f"process {pid} ({name})")
                break
    return found


def mounts() -> set[str]:
    """The mounts of this process's namespace: `id mount-point`."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {f"mount {line.split()[0]} at {line.split()[4]}" for line in lines}


def loops() -> set[str]:
    """The loop devices on files of ours."""
    ours = (str(cache.ROOT), tempfile.gettempdir())
    found = set()
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = backing.read_text().strip()
        except OSError:
            continue
        if file.startswith(ours):
            found.add(f"loop device {backing.parts[3]} on {file}")
    return found


def _all(*, with_loops: bool) -> set[str]:
    return processes() | mounts() | (loops() if with_loops else set())


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare before and after; a little patience, since the kernel frees some things later."""
    # Loop devices are the whole machine's: another run's may come meanwhile, in CI there is none.
    with_loops = bool(os.environ.get("CI"))
    before = _all(with_loops=with_loops)
    yield
    until = time.monotonic() + PATIENCE
    while left := _all(with_loops=with_loops) - before:
        if time.monotonic() > until:
            pytest.fail(f"{request.node.nodeid} left behind: {', '.join(sorted(left))}")
        time.sleep(0.02)
