"""What is built once and used often: outside the checkout, named by what it is made of."""

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.stages import stage

CHECKOUT = Path(__file__).resolve().parent.parent.parent
ROOT = Path(os.environ.get("IMMUD_CACHE") or "/var/cache/immud-tests")
KEEP = 4
"""How many entries of one kind stay; the ones used least recently go,"""
IN_USE = 1800.0
"""but not within so many seconds: a run that goes on beside this one may be copying them."""


def digest(*parts: str | bytes | Path) -> str:
    """A short name for `parts`; of a path, for the bytes in that file."""
    state = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part
        data = data.encode() if isinstance(data, str) else data
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()[:16]


@contextlib.contextmanager
def locked(name: str, what: str, *, shared: bool = False) -> Iterator[None]:
    """One process at a time, by a lock file in the cache, or all those together that are `shared`.

    Who has to wait is told for `what`.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / f".{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            with stage(f"waiting for another run: {what}"):
                fcntl.flock(lock, kind)
        yield


def entry(kind: str, key: str, what: str, build: Callable[[Path], None]) -> Path:
    """The directory `kind`-`key` of the cache, made by `build` when it is not there yet.

    `build` fills an empty directory that becomes the entry in one move, so that an interrupted
    run leaves no half of one. `what` is told to the person who waits.
    """
    place = ROOT / f"{kind}-{key}"
    with locked(kind, what):
        if not place.exists():
            aside = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=ROOT))
            try:
                with stage(what):
                    build(aside)
                aside.chmod(0o755)
                aside.rename(place)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
        os.utime(place)
        used = sorted(ROOT.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in used[KEEP:]:
            if time.time() - old.stat().st_mtime > IN_USE:
                shutil.rmtree(old, ignore_errors=True)
    return place


ROOM = 8 << 30
"""Bytes that disks of one test take at most, with much to spare."""


@functools.cache
def _scratch() -> Path:
    # A copy of a disk is three times as fast in memory, and a hundred tests begin with one.
    memory = Path("/dev/shm")
    free = shutil.disk_usage(memory).free if memory.is_dir() else 0
    return (memory / "immud-tests" if free > ROOM else ROOT) / "scratch"


_OWNER = os.getpid()


def scratch() -> Path:
    """Where this process's disks go that live for one test: in memory, where there is room."""
    place = _scratch() / str(_OWNER)
    place.mkdir(parents=True, exist_ok=True)
    return place


def sweep() -> None:
    """Remove what killed runs left in the scratch directory."""
    for left in scratch().parent.iterdir():
        if not Path("/proc", left.name).exists():
            shutil.rmtree(left, ignore_errors=True)
