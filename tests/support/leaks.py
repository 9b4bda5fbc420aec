"""pytest plugin: a test that leaves a process, a mount or a loop device behind fails.

Only what this process made counts, since others may be at work beside it: its descendants, and
loop devices on files below its temporary directory or its part of the cache's scratch directory.
"""

import os
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


def loops(*places: Path) -> set[str]:
    """The loop devices on files below `places`."""
    found = set()
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = backing.read_text().strip()
        except OSError:
            continue
        if any(Path(file).is_relative_to(place) for place in places):
            found.add(f"loop device {backing.parts[3]} on {file}")
    return found


@pytest.fixture(autouse=True)
def _nothing_left(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Compare before and after; a little patience, since the kernel frees some things later."""
    places = (cache.scratch(), tmp_path_factory.getbasetemp())

    def everything() -> set[str]:
        return processes() | mounts() | loops(*places)

    before = everything()
    yield
    until = time.monotonic() + PATIENCE
    while left := everything() - before:
        if time.monotonic() > until:
            pytest.fail(f"{request.node.nodeid} left behind: {', '.join(sorted(left))}")
        time.sleep(0.02)
