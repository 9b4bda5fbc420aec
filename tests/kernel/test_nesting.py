"""A mount inside another one's place: out of the way, and on top again, with real mounts."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from immud.early import kernel, mountinfo
from immud.early.mountinfo import top
from immud.tomb.fs import mounts
from immud.tomb.fs.nesting import Nest, ground
from tests.support.namespaces import in_namespace


class Place:
    """Stands for a volume: what is mounted at `target`, if it is what was mounted there."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)
        self.number = ""

    def state(self) -> Any:
        found = top(mountinfo.read(), self.target)
        mounted = SimpleNamespace(number=found.dev) if found and found.dev == self.number else None
        return SimpleNamespace(mounted=mounted)

    def devices(self, mapping: Any) -> list[str]:
        return [mapping.number]

    def mounted(self) -> None:
        found = top(mountinfo.read(), self.target)
        assert found
        self.number = found.dev


async def nobody() -> None:
    """No other is about to be mounted."""


def nests(*targets: Path) -> list[Nest]:
    turn, made = asyncio.Lock(), list[Nest]()
    for target in targets:
        place: Any = Place(target)
        made.append(Nest(place, lambda: made, turn, nobody))
    return made


def put(target: str, below: list[str]) -> bool:
    """In a child, as `opening.mount_unheld` does it."""
    mounts.take_away(below, kernel.MNT_DETACH)
    os.makedirs(target, exist_ok=True)
    kernel.mount("tmpfs", target, "tmpfs", 0)
    return True


def fail(target: str, below: list[str]) -> bool:
    mounts.take_away(below, kernel.MNT_DETACH)
    raise OSError(5, "no")


async def open_(nest: Nest) -> None:
    await nest.in_turn(put, nest.volume.target, timeout=10)
    nest.volume.mounted()  # type: ignore[attr-defined]


@in_namespace
def test_the_inner_one_is_never_hidden(tmp_path: Path) -> None:
    outer, inner, other = nests(tmp_path / "home", tmp_path / "home/alice", tmp_path / "other")
    assert outer.inner() == [inner]

    async def scene() -> None:
        await open_(inner)
        await open_(other)
        assert not inner.uprooted()
        (tmp_path / "home/alice/file").touch()
        await open_(outer)
        # It is out of the way, and whoever owns it can tell why.
        assert inner.volume.state().mounted is None
        assert inner.uprooted()
        assert not other.uprooted()
        await open_(inner)
        assert not inner.uprooted()
        # Pulled out: what is on it goes with it.
        kernel.umount2(outer.volume.target, kernel.MNT_DETACH)
        assert inner.volume.state().mounted is None
        assert inner.uprooted()
        await open_(inner)
        kernel.umount2(inner.volume.target)
        assert not inner.uprooted(), "somebody meant this very mount"

    asyncio.run(scene())


@in_namespace
def test_an_outer_one_that_fails_has_uprooted_it_too(tmp_path: Path) -> None:
    outer, inner = nests(tmp_path / "home", tmp_path / "home/alice")

    async def scene() -> None:
        await open_(inner)
        with pytest.raises(OSError, match="no"):
            await outer.in_turn(fail, outer.volume.target, timeout=10)
        assert inner.uprooted()

    asyncio.run(scene())


@in_namespace
def test_the_ground_is_what_the_directory_is_on(tmp_path: Path) -> None:
    target = str(tmp_path / "a/b")
    os.makedirs(target)
    before = ground(mountinfo.read(), target)
    kernel.mount("tmpfs", target, "tmpfs", 0)
    assert ground(mountinfo.read(), target) == before
    kernel.umount2(target)
    kernel.mount("tmpfs", str(tmp_path / "a"), "tmpfs", 0)
    found = top(mountinfo.read(), str(tmp_path / "a"))
    assert found
    assert ground(mountinfo.read(), target) == found.id != before
