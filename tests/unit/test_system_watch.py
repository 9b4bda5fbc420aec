"""Which file systems take no writes, by what the kernel says of them."""

import asyncio

import pytest

from immud.early.mountinfo import MountEntry
from immud.watch import system
from immud.watch.kmsg import KernelLog
from immud.watch.system import DOUBT, SystemWatch, stopped


def entry(target: str, dev: str, words: str) -> MountEntry:
    number = 1 if target == "/" else int(dev.split(":")[1])
    return MountEntry(
        id=number, parent=0 if target == "/" else 1, dev=dev, root="/", target=target,
        options="rw", fstype="xfs", source="/dev/x", super_options=words,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "is_stopped"),
    [
        ("rw", False),
        ("rw,errors=remount-ro", False),
        ("ro,relatime", True),
        ("rw,emergency_ro", True),
        ("rw,shutdown", True),
    ],
)
def test_a_superblock_says_whether_it_takes_writes(words: str, is_stopped: bool) -> None:
    mounts = (entry("/", "8:1", "rw"), entry("/var", "8:2", words), entry("/srv", "8:3", "ro"))
    assert stopped(mounts) == (frozenset({"8:2"}) if is_stopped else frozenset())


async def test_many_words_of_the_kernel_are_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[frozenset[str]] = []
    mounts = (entry("/", "8:1", "rw"),)
    monkeypatch.setattr(system.mountinfo, "read", lambda: mounts)
    watch = SystemWatch(lambda: looks.append(watch.stopped), KernelLog("/dev/null"))
    watch.start()
    mounts = (entry("/", "8:1", "rw,emergency_ro"),)
    for _ in range(100):
        watch._heard("x")
    assert looks == []
    async with asyncio.timeout(20):
        while not looks:
            await asyncio.sleep(DOUBT / 10)
    assert looks == [frozenset({"8:1"})]
    watch.close()
