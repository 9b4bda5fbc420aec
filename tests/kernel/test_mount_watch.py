"""Being told of changes of a real mount table: each one, soon, and a storm of them seldom."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from immud.early import kernel
from immud.watch.mounts import MountWatch
from tests.support.namespaces import in_namespace


def told(change: Callable[[], None], look: Callable[[], object] = lambda: None) -> list[object]:
    """What `look` gives each time, in a fifth of a second each before and after a change."""
    seen: list[object] = []

    async def watch() -> None:
        watcher = MountWatch(lambda: seen.append(look()))
        watcher.start()
        await asyncio.sleep(0.2)
        change()
        await asyncio.sleep(0.2)
        watcher.close()

    asyncio.run(watch())
    return seen


@in_namespace
def test_a_change_is_told_once(tmp_path: Path) -> None:
    def change() -> None:
        kernel.mount("tmpfs", str(tmp_path), "tmpfs", 0)

    # At the start, perhaps once more for what happened before, and the change: no spinning.
    assert 2 <= len(told(change)) <= 3


@in_namespace
def test_silence_while_nothing_changes(tmp_path: Path) -> None:
    assert len(told(lambda: None)) <= 2


@in_namespace
def test_a_storm_is_told_seldom_and_its_end_is_not_missed(tmp_path: Path) -> None:
    place = str(tmp_path)

    def change() -> None:
        for _ in range(200):
            kernel.mount("tmpfs", place, "tmpfs", 0)
        kernel.mount_setattr(place, set_=kernel.MOUNT_ATTR_RDONLY)

    seen = told(change, lambda: bool(os.statvfs(place).f_flag & os.ST_RDONLY))
    assert len(seen) <= 4
    assert seen[-1] is True


@in_namespace
def test_a_change_soon_after_another_is_told_as_well(tmp_path: Path) -> None:
    """One that comes while what went before is still being looked at, and right after."""
    place = str(tmp_path)
    kernel.mount("tmpfs", place, "tmpfs", 0)
    for delay in (0.0, 0.001, 0.003, 0.005, 0.007, 0.01):
        seen: list[bool] = []

        async def watch(delay: float = delay, seen: list[bool] = seen) -> None:
            watcher = MountWatch(lambda: seen.append(bool(os.statvfs(place).f_flag & os.ST_RDONLY)))
            watcher.start()
            await asyncio.sleep(0.05)
            kernel.mount_setattr(place, set_=kernel.MOUNT_ATTR_NOEXEC)
            await asyncio.sleep(delay)
            kernel.mount_setattr(place, set_=kernel.MOUNT_ATTR_RDONLY)
            await asyncio.sleep(0.05)
            watcher.close()

        asyncio.run(watch())
        kernel.mount_setattr(place, clear=kernel.MOUNT_ATTR_RDONLY)
        assert seen[-1] is True, delay
