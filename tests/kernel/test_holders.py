"""Who holds a file system whose files do not show that they are on it, and who does not."""

import asyncio
import fcntl
import os
import time
from pathlib import Path

import pytest

from immud.child import in_child
from immud.early import kernel, mountinfo
from immud.tomb import closing, holders
from immud.tomb.fs import mounts
from immud.tomb.holders import pair
from tests.kernel.mapped import (
    btrfs,
    fallback,
    find,
    known,
)
from tests.kernel.test_tomb import WAYS, process, tomb
from tests.support.namespaces import in_namespace


@pytest.mark.parametrize("how", WAYS)
def test_on_btrfs_they_are_found_when_it_is_in_no_table_any_more(tmp_path: Path, how: str) -> None:
    @in_namespace
    def test() -> None:
        with (
            fallback(tmp_path),
            btrfs(tmp_path) as (home, number),
            process(WAYS[how], home) as pid,
        ):
            assert os.stat(home).st_dev != os.makedev(*pair(number))
            assert [(h.pid, h.how) for h in find(number).values] == [(pid, how)]
            detached = known(number)
            mounts.take_away([number], kernel.MNT_DETACH)
            with process(WAYS["cwd"], home):
                # That is the fallback, at the same path.
                found = find(number, detached=detached)
            assert [(h.pid, h.how) for h in found.values] == [(pid, how)]

    test()


@in_namespace
def test_on_an_xfs_that_has_shut_down_they_are_found(tmp_path: Path) -> None:
    with (
        tomb(tmp_path, fstype="xfs") as (target, number),
        process(WAYS["cwd"], target) as sitter,
        process(WAYS["open file"], target) as writer,
    ):
        fd = os.open(target, os.O_RDONLY)
        # XFS_IOC_GOINGDOWN
        fcntl.ioctl(fd, 0x8004587D, b"\2\0\0\0")
        os.close(fd)
        with pytest.raises(OSError, match="Input/output"):
            os.stat(target)
        assert sorted(h.pid for h in find(number).values) == sorted([sitter, writer])
        detached = known(number)
        mounts.take_away([number], kernel.MNT_DETACH)
        found = find(number, detached=detached)
        assert sorted(h.pid for h in found.values) == sorted([sitter, writer])


@in_namespace
def test_on_an_overlay_of_it_they_hold_it(tmp_path: Path) -> None:
    with tomb(tmp_path) as (target, number):
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(f"{target}/{name}")
        layers = f"lowerdir={target}/lower,upperdir={target}/upper,workdir={target}/work"
        kernel.mount("overlay", f"{target}/merged", "overlay", 0, layers)
        with process(WAYS["cwd"], f"{target}/merged") as pid:
            assert [h.pid for h in find(number).values] == [pid]


@in_namespace
def test_whoever_has_a_number_of_what_is_gone_is_left_alone(tmp_path: Path) -> None:
    with btrfs(tmp_path) as (_, number):
        detached = known(number)
        mounts.take_away([number], kernel.MNT_DETACH)
        before = mountinfo.read()
        again: list[str] = []
        # Somebody else on this machine may have one of them for a moment.
        for count in range(500):
            place = tmp_path / str(count)
            place.mkdir()
            kernel.mount("tmpfs", str(place), "tmpfs", 0)
            before = mountinfo.read()
            devices = [entry.target for entry in before if entry.dev == number]
            again = [entry.target for entry in before if entry.id in detached]
            if devices and again:
                again += devices
                break
            time.sleep(0.02 if count > 20 else 0)
        assert again[1:], "neither number was given to another mount"
        for where in again:
            with process(WAYS["cwd"], where):
                # 7:1000 stands for the drive.
                lost = closing.Lost(["7:1000", number], [], list(detached))
                found = asyncio.run(in_child(closing.purge_and_find, lost, True, True))
                assert found == (["7:1000"], [])
        assert mountinfo.read() == before


@in_namespace
def test_a_directory_is_not_held_by_who_is_in_a_btrfs_inside_it(tmp_path: Path) -> None:
    with btrfs(tmp_path) as (home, number):
        above = str(tmp_path / "var")
        with process(WAYS["cwd"], home), process(WAYS["cwd"], above) as pid:
            found = holders.scan([], [above], False, False, [pair(number)])
        assert [who[0] for who in found] == [pid]
