"""What a drive has to be to become a tomb, and the steps that make it one. Pure."""

from dataclasses import replace

import pytest

from immud.errors import Busy, ImmudError, TargetExists
from immud.make.plan import first_partition, plan
from immud.make.refuse import SMALLEST, check, resumes
from immud.make.steps import (
    Copy,
    Enrol,
    Format,
    MakeFileSystem,
    Map,
    Mark,
    Partition,
    Step,
    Unmap,
    Wipe,
)
from immud.make.target import Stage, Target, Wish, human

DRIVE = Target("/dev/sdb", "8:16", "/dev/sdb", "Maker Stick 64.0 GiB", 64 << 30, volume="/dev/sdb")
WISH = Wish()


def kinds(steps: tuple[Step, ...]) -> list[type]:
    return [type(step) for step in steps]


def test_an_empty_drive() -> None:
    check(DRIVE, WISH)
    steps = plan(DRIVE, WISH)
    assert kinds(steps) == [Format, Map, MakeFileSystem, Unmap, Mark, Enrol]
    assert steps[0] == Format("/dev/sdb", "home", Stage.FORMATTING)
    assert steps[4] == Mark("/dev/sdb", "home", Stage.NONE)


def test_it_counts_as_unfinished_from_the_first_byte_to_the_last() -> None:
    """Whatever is done to it is done while the header says that nothing in it is anybody's."""
    for wish in (WISH, replace(WISH, source="/var/home"), replace(WISH, partition=True)):
        steps = plan(replace(DRIVE, content=("vfat on /dev/sdb",)), wish)
        formatted = next(at for at, step in enumerate(steps) if isinstance(step, Format))
        finished = next(
            at for at, step in enumerate(steps) if isinstance(step, Mark) and not step.stage
        )
        for at, step in enumerate(steps):
            if isinstance(step, Map | MakeFileSystem | Copy):
                assert formatted < at < finished
            if isinstance(step, Wipe | Partition):
                assert at < formatted
        # Nobody has it open, and nobody is told of it, before it is finished.
        assert kinds(steps[finished - 1 :]) == [Unmap, Mark, Enrol]


def test_homes_are_copied_only_into_a_whole_file_system() -> None:
    steps = plan(DRIVE, replace(WISH, source="/var/home"))
    assert kinds(steps) == [Format, Map, MakeFileSystem, Mark, Copy, Unmap, Mark, Enrol]
    assert steps[3] == Mark("/dev/sdb", "home", Stage.COPYING)


def test_an_interrupted_copy_is_gone_on_with_and_nothing_is_formatted() -> None:
    left = replace(
        DRIVE,
        content=("crypto_LUKS (home) on /dev/sdb1",),
        stage=Stage.COPYING,
        volume="/dev/sdb1",
        leftovers=("immud-home.making",),
    )
    wish = replace(WISH, source="/var/home", partition=True)
    check(left, wish)
    assert resumes(left, wish)
    steps = plan(left, wish)
    assert kinds(steps) == [Unmap, Map, Mark, Copy, Unmap, Mark, Enrol]
    assert steps[1] == Map("/dev/sdb1", "immud-home.making")
    # Another command on that drive is another matter.
    with pytest.raises(TargetExists, match="Homes were being copied"):
        check(left, WISH)
    anew = replace(wish, overwrite=True)
    check(left, anew)
    assert kinds(plan(left, anew))[:4] == [Unmap, Wipe, Partition, Format]


def test_what_an_interrupted_run_left_counts_as_empty() -> None:
    left = replace(DRIVE, content=("crypto_LUKS (home) on /dev/sdb",), stage=Stage.FORMATTING)
    check(left, WISH)
    assert kinds(plan(left, WISH))[:2] == [Wipe, Format]


def test_partitions_are_wiped_before_their_table() -> None:
    full = replace(DRIVE, content=("gpt on /dev/sdb",), parts=("/dev/sdb1", "/dev/sdb2"))
    steps = plan(full, replace(WISH, overwrite=True, partition=True, enrol=False))
    assert steps[0] == Wipe(("/dev/sdb1", "/dev/sdb2", "/dev/sdb"))
    assert steps[1:3] == (
        Partition("/dev/sdb"),
        Format("/dev/sdb1", "home", Stage.FORMATTING),
    )
    assert Enrol not in kinds(steps)


@pytest.mark.parametrize(
    ("disk", "part"),
    [("sdb", "sdb1"), ("nvme0n1", "nvme0n1p1"), ("mmcblk0", "mmcblk0p1"), ("loop0", "loop0p1")],
)
def test_how_the_kernel_calls_a_first_partition(disk: str, part: str) -> None:
    assert first_partition(f"/dev/{disk}") == f"/dev/{part}"


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"system": ("/", "/boot")}, Busy, "holds the running system"),
        ({"uses": ("/dev/sdb1 is mounted at /mnt",)}, Busy, "mounted at /mnt"),
        ({"foreign": "a mapping"}, ImmudError, "is a mapping"),
        ({"read_only": True}, ImmudError, "read-only"),
        ({"size": 20 << 20}, ImmudError, "needs at least"),
        ({"size": 0}, ImmudError, "needs at least"),
        ({"tombs": ("home",)}, TargetExists, "immud tomb forget home"),
    ],
)
def test_what_no_option_gets_past(change: dict[str, object], kind: type, said: str) -> None:
    target = replace(DRIVE, **change)  # type: ignore[arg-type]
    for wish in (WISH, replace(WISH, overwrite=True)):
        with pytest.raises(kind, match=said) as caught:
            check(target, wish)
        assert "Nothing was changed." in str(caught.value)
        # And not because it is empty, or an earlier run's: first comes what speaks against it.
        with pytest.raises(kind, match=said):
            check(replace(target, content=("ext4",), stage=Stage.FORMATTING), wish)


def test_what_is_on_it_is_given_up_only_when_told_so() -> None:
    full = replace(DRIVE, content=("vfat (PHOTOS) on /dev/sdb1", "dos on /dev/sdb"))
    with pytest.raises(TargetExists, match=r"vfat \(PHOTOS\) on /dev/sdb1.*--overwrite"):
        check(full, WISH)
    check(full, replace(WISH, overwrite=True))


def test_a_partition_is_not_partitioned() -> None:
    part = replace(DRIVE, devnode="/dev/sdb1", partition=True)
    check(part, WISH)
    with pytest.raises(ImmudError, match="is a partition already"):
        check(part, replace(WISH, partition=True))


@pytest.mark.parametrize("filesystem", SMALLEST)
def test_the_smallest_drive(filesystem: str) -> None:
    wish = replace(WISH, filesystem=filesystem)
    size = SMALLEST[filesystem] + (16 << 20)
    check(replace(DRIVE, size=size), wish)
    with pytest.raises(ImmudError, match="needs at least"):
        check(replace(DRIVE, size=size - 512), wish)


def test_every_step_says_what_it_does() -> None:
    left = replace(DRIVE, content=("x",), leftovers=("immud-home.making",))
    steps = plan(left, replace(WISH, source="/var/home", partition=True, overwrite=True))
    assert len({step.describe() for step in steps}) == len(set(steps)) == len(steps) - 1


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1 << 20, "1.0 MiB"), (60_000_000_000, "55.9 GiB"), (1 << 50, "1024 TiB")],
)
def test_sizes(size: int, text: str) -> None:
    assert human(size) == text
