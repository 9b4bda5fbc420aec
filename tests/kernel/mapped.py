"""A tomb whose mapping is a loop device, there being no device-mapper natively."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from immud.early import kernel, mountinfo
from immud.early.mountinfo import top
from immud.tomb import closing, holders, loops, remains
from immud.tomb.fs import mounts
from immud.tomb.holders import Holders, pair
from immud.tomb.luks import dm
from immud.tomb.volume import Volume
from tests.kernel.test_tomb import tomb
from tests.support.process import run

PRIVATE = (
    "libc = ctypes.CDLL(None); libc.unshare(0x20000)\n"
    "libc.mount(None, b'/', None, 0x4000 | 1 << 18, None)\n"
)


def find(number: str, *, namespaces: bool = False, detached: tuple[int, ...] = ()) -> Holders:
    return asyncio.run(holders.find([pair(number)], namespaces=namespaces, detached=detached))


def known(number: str) -> tuple[int, ...]:
    return tuple(mounts.numbers([number], mountinfo.read()))


@contextmanager
def fallback(tmp_path: Path) -> Iterator[str]:
    """Something in memory where the tomb goes, with a home in it."""
    place = tmp_path / "var" / "home"
    place.mkdir(parents=True)
    kernel.mount("tmpfs", str(place), "tmpfs", 0)
    (place / "alice").mkdir()
    yield str(place)


@contextmanager
def btrfs(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A tomb with a home that is a subvolume: (the home, `major:minor`)."""
    with tomb(tmp_path, fstype="btrfs") as (where, number):
        run("btrfs", "subvolume", "create", f"{where}/alice")
        yield f"{where}/alice", number


class OnLoop(dm.Mapping):
    """What stands for a mapping where there is no device mapper."""

    __slots__ = ()

    @property
    def nodes(self) -> tuple[str, str]:
        return self.name, self.name


def on_a_mapping(target: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Volume, str]:
    """A tomb that is what is mounted at `target`; what is there as long as the kernel has it."""
    entry = top(mountinfo.read(), target)
    assert entry
    rdev = os.stat(entry.source).st_rdev
    mapping = OnLoop(entry.source, f"{os.major(rdev)}:{os.minor(rdev)}", "")
    name = os.path.basename(entry.source)
    uuid = run("blkid", "-p", "-o", "value", "-s", "UUID", entry.source).stdout.strip()
    alive = f"/sys/fs/{entry.fstype}/{uuid if entry.fstype == 'btrfs' else name}"
    assert os.path.exists(alive)
    aside = os.path.dirname(os.path.dirname(target))
    monkeypatch.setattr(remains, "DIRECTORY", f"{aside}/remains")
    # It is the test's own, and detached there.
    monkeypatch.setattr(loops, "detach", len)
    monkeypatch.setattr(dm, "mappings", lambda: (mapping,) if os.path.exists(alive) else ())
    monkeypatch.setattr(closing, "_remove", lambda _: not os.path.exists(alive))
    monkeypatch.setattr(closing, "_remove_later", len)
    volume = SimpleNamespace(
        config=SimpleNamespace(file=""),
        nudge=asyncio.Event(),
        target=target,
        state=lambda: SimpleNamespace(mappings=dm.mappings()),
        base=lambda _: number,
        stands=lambda *_: False,
        unwiped=lambda: (),
        devices=lambda m: Volume.devices(cast(Volume, None), m),
    )
    number = mapping.number
    return cast(Volume, volume), alive


def purge(target: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Purge the file system at `target` as that of a pulled drive; who was ended, and why."""
    volume, alive = on_a_mapping(target, monkeypatch)
    ended = asyncio.run(closing.purge(volume))
    assert not os.path.exists(alive)
    return [(holder.pid, holder.how) for holder in ended.values]


def again(look: Callable[[], object]) -> str:
    return repr(look())
