"""The disk that loses what was not flushed: of what it keeps the power cuts' worth depends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lossy import SECTOR, Disk, Medium
from tests.support.process import run

SIZE = 256


def sectors(path: Path) -> list[int]:
    """The first byte of each sector."""
    return list(path.read_bytes()[::SECTOR])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A disk of SIZE sectors of zeros."""
    made = tmp_path / "disk"
    made.write_bytes(bytes(SIZE * SECTOR))
    return made


@pytest.fixture
def medium(path: Path) -> Iterator[Medium]:
    with path.open("r+b") as file:
        yield Medium(file.fileno())


def write(medium: Medium, first: int, count: int, value: int) -> None:
    medium.write(first * SECTOR, bytes([value]) * count * SECTOR)


def test_what_was_flushed_stays(medium: Medium, path: Path) -> None:
    write(medium, 0, 8, 1)
    medium.flush()
    assert medium.lose_power("1") == 0
    assert sectors(path) == [1] * 8 + [0] * (SIZE - 8)


def test_what_was_not_is_seen_by_its_machine_and_not_on_the_medium(
    medium: Medium, path: Path
) -> None:
    write(medium, 1, 2, 1)
    write(medium, 2, 1, 2)
    assert list(medium.read(0, 4 * SECTOR)[::SECTOR]) == [0, 1, 2, 0]
    assert sectors(path) == [0] * SIZE


def test_chance_loses_some_of_it_in_any_order_and_tears_it(tmp_path: Path) -> None:
    """Over many cuts: nothing, all, gaps, a later write without an earlier one, half a write."""
    seen = set()
    for seed in range(200):
        path = tmp_path / "disk"
        path.write_bytes(bytes(SIZE * SECTOR))
        with path.open("r+b") as file:
            medium = Medium(file.fileno())
            for value in (1, 2, 3):
                write(medium, 8 * value, 8, value)
            write(medium, 8, 8, 4)
            medium.lose_power(str(seed))
            # Power that is gone takes nothing twice.
            assert medium.lose_power(str(seed)) == 0
        left = sectors(path)
        writes = [tuple(left[8 * value : 8 * value + 8]) for value in (1, 2, 3)]
        assert not any(left[:8] + left[32:])
        for value, found in zip((1, 2, 3), writes, strict=True):
            assert set(found) <= {0, value, 4}
        seen.add(tuple("torn" if len(set(found)) > 1 else found[0] for found in writes))
    assert {(0, 0, 0), (4, 2, 3), (1, 2, 3), (0, 0, 3), (4, 0, 0), (0, 2, 0)} <= seen
    assert any("torn" in kinds for kinds in seen)


def test_the_same_seed_loses_the_same(tmp_path: Path) -> None:
    left = []
    for name in ("first", "second"):
        path = tmp_path / name
        path.write_bytes(bytes(SIZE * SECTOR))
        with path.open("r+b") as file:
            medium = Medium(file.fileno())
            for at in range(0, SIZE, 4):
                write(medium, at, 4, 1)
            assert 0 < medium.lose_power("7 1") < SIZE * SECTOR
        left.append(sectors(path))
    assert left[0] == left[1]


def qemu_io(disk: Disk, *commands: str) -> None:
    """Let QEMU do that on the disk, and then die at once."""
    options = disk.node["server"]
    at = f"driver=nbd,server.type={options['type']},server.path={options['path']}"
    given = [word for command in (*commands, "abort") for word in ("-c", command)]
    died = run("qemu-io", "-t", "writeback", "--image-opts", at, *given, check=False)
    assert died.status == -6, died


def test_qemu_writes_are_lost_and_its_flushes_are_not(tmp_path: Path, path: Path) -> None:
    lost = []
    for seed in range(8):
        path.write_bytes(bytes(SIZE * SECTOR))
        disk = Disk(path, tmp_path / "socket", str(seed))
        qemu_io(disk, "write -P 1 0 4k", "flush", "write -P 2 4k 64k", "read -P 2 4k 64k")
        told = disk.settle()
        assert (told["writes"], told["flushes"]) == (2, 1)
        left = sectors(path)
        assert left[:8] == [1] * 8
        assert left[8:136].count(0) * SECTOR == told["lost"]
        lost.append(told["lost"])
    assert min(lost) == 0
    assert max(lost) == 64 << 10


def test_the_power_goes_after_so_many_writes(tmp_path: Path, path: Path) -> None:
    disk = Disk(path, tmp_path / "socket", "1")
    disk.cut_after(2)
    # What comes after the cut is not answered: qemu-io waits, and is killed for it.
    writes = [f"aio_write -P {n} {n * SECTOR} 512" for n in (1, 2, 3)]
    qemu_io(disk, writes[0], "aio_flush", "flush", *writes[1:], "sleep 300")
    assert disk.is_cut(10)
    assert disk.settle()["writes"] == 2
    left = sectors(path)
    assert left[1] == 1
    assert left[3] == 0
