"""What is left of a tomb is taken away, whoever holds it and whatever hides it."""

import asyncio
import errno
import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from immud.child import in_child
from immud.early import kernel, mountinfo
from immud.early.mountinfo import top
from immud.errors import Busy, ImmudError
from immud.model import TombConfig
from immud.tomb import closing, holders, loops, remains
from immud.tomb.absence.fallback import Fallback
from immud.tomb.absence.managers import UserManagers
from immud.tomb.drives import below
from immud.tomb.fs import mounting, mounts
from immud.tomb.holders import Holders
from immud.tomb.luks.unlock import Inner
from immud.tomb.volume import Volume
from immud.watch.devices import Device
from tests.kernel.mapped import (
    PRIVATE,
    OnLoop,
    btrfs,
    fallback,
    on_a_mapping,
    purge,
)
from tests.kernel.test_nesting import nests
from tests.kernel.test_tomb import WAYS, loop_device, make_image, process, tomb
from tests.support import fuse
from tests.support.namespaces import in_namespace


@in_namespace
def test_a_loop_device_on_a_file_in_a_btrfs_stands_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        tomb(tmp_path, fstype="btrfs") as (target, _),
        loop_device(make_image(Path(target, "inner"))) as node,
    ):
        volume, _ = on_a_mapping(target, monkeypatch)
        (mapping,) = volume.state().mappings
        number = os.stat(node).st_rdev
        standing = loops.stack(volume.devices(mapping))
        assert f"{os.major(number)}:{os.minor(number)}" in standing


@in_namespace
def test_a_purge_ends_its_holders_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        fallback(tmp_path) as place,
        process(WAYS["cwd"], f"{place}/alice") as before,
        btrfs(tmp_path) as (home, _),
        loop_device(make_image(tmp_path / "inner")) as node,
    ):
        mounts.mount(node, "ext4", f"{home}/inner", [])
        with (
            process(WAYS["cwd"], f"{home}/inner") as inside,
            process(WAYS["cwd"], home) as sitter,
            process(WAYS["open file"], home) as writer,
        ):
            ended = purge(os.path.dirname(home), monkeypatch)
            assert sorted(ended) == sorted([(sitter, "cwd"), (writer, "open file")])
            for pid in (before, inside):
                os.kill(pid, 0)


@in_namespace
def test_a_purge_that_was_killed_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(lost: closing.Lost, **_: bool) -> None:
        await in_child(mounts.take_away, lost.devices, kernel.MNT_DETACH)
        raise ConnectionAbortedError

    with (
        fallback(tmp_path) as place,
        process(WAYS["cwd"], f"{place}/alice") as before,
        btrfs(tmp_path) as (home, _),
        process(WAYS["cwd"], home) as pid,
    ):
        volume, alive = on_a_mapping(os.path.dirname(home), monkeypatch)
        with monkeypatch.context() as patched:
            patched.setattr(closing, "_purge_and_find", killed)
            with pytest.raises(ConnectionAbortedError):
                asyncio.run(closing.purge(volume))
        assert os.path.exists(alive)
        ended = asyncio.run(closing.purge(volume)).values
        assert [(holder.pid, holder.how) for holder in ended] == [(pid, "cwd")]
        assert not os.path.exists(alive)
        assert os.listdir(remains.DIRECTORY) == []
        os.kill(before, 0)


@in_namespace
def test_what_was_kept_of_another_mapping_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with btrfs(tmp_path) as (home, number), loop_device(make_image(tmp_path / "other")) as node:
        volume, _ = on_a_mapping(os.path.dirname(home), monkeypatch)
        (mapping,) = volume.state().mappings
        remains.keep(mapping, [mapping.number, number], {7})
        assert remains.kept(mapping) == ([mapping.number, number], {7})
        rdev = os.stat(node).st_rdev
        later = OnLoop(mapping.name, f"{os.major(rdev)}:{os.minor(rdev)}", "")
        assert remains.kept(later) == ([], set())
        mounts.take_away([number])
        # Anybody's, since it is gone.
        assert remains.kept(mapping) == ([mapping.number], {7})


@in_namespace
def test_a_btrfs_that_the_kernel_still_has_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsconfig(_: int, command: int, *__: str) -> None:
        # What btrfs says before Linux 6.7, and of more than one device.
        if command == kernel.FSCONFIG_CMD_CREATE:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(kernel, "fsconfig", fsconfig)
    with pytest.raises(Busy, match="still has from before"):
        mounts.mount("/dev/mapper/it", "btrfs", str(tmp_path), [])


@in_namespace
def test_a_purge_ends_who_holds_a_private_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        fallback(tmp_path),
        btrfs(tmp_path) as (home, _),
        process(PRIVATE + WAYS["open file"], home),
        process(PRIVATE) as bystander,
    ):
        purge(os.path.dirname(home), monkeypatch)
        os.kill(bystander, 0)


async def unmap(volume: Volume, pid: int, alive: str) -> Holders:
    """Politely first, and then by force."""
    with pytest.raises(Busy, match=f"pid {pid}, .*open file"):
        await closing.unmap(volume)
    assert os.path.exists(alive)
    return await closing.unmap(volume, force=5.0)


@pytest.mark.parametrize("fstype", ["ext4", "btrfs"])
def test_force_ends_who_holds_a_private_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fstype: str
) -> None:
    @in_namespace
    def test() -> None:
        with (
            tomb(tmp_path, fstype=fstype) as (target, number),
            process(PRIVATE + WAYS["open file"], target) as pid,
            process(PRIVATE) as bystander,
        ):
            volume, alive = on_a_mapping(target, monkeypatch)
            mounts.take_away([number])
            monkeypatch.setattr(closing, "SETTLE", 0.3)
            ended = asyncio.run(unmap(volume, pid, alive)).values
            assert [(h.pid, h.how) for h in ended] == [(pid, "open file")]
            assert not os.path.exists(alive)
            os.kill(bystander, 0)

    test()


@in_namespace
def test_what_is_still_mounted_in_a_private_copy_is_opened_again(tmp_path: Path) -> None:
    with tomb(tmp_path) as (target, number):
        entry = top(mountinfo.read(), target)
        assert entry
        node = entry.source
        mapping = SimpleNamespace(name="it", devnode=node, number=number)
        volume = SimpleNamespace(
            mapping=lambda _: mapping,
            inner=Inner("it", "ext4", "", pinned=False, sound=False),
            damage="old",
            checked=True,
        )
        with process(PRIVATE + WAYS["open file"], target):
            mounts.take_away([number])
            device = Device("/devices/a", node, number)
            asyncio.run(mounting.check(cast(Volume, volume), device, lambda _: None))
            assert (volume.damage, volume.checked) == ("", False)
            # Who is in the copy is at the same path, and not in the directory below it.
            config = TombConfig("home", absent="directory", on_return="wait")
            place = Fallback(config, *nests(Path(target)), UserManagers(lambda: None), lambda: None)
            guard = place.guard([number])
            assert guard
            assert holders.scan(*guard) == []
            with pytest.raises(Busy, match="in use"):
                mounts.mount(node, "ext4", target, ["ro"])
            mounts.mount(node, "ext4", target, [])
            assert (Path(target) / "file").exists()
        mounts.take_away([number])
        assert not below.claimed(node)


@pytest.mark.parametrize("owner", [0, 1000])
def test_what_somebody_mounted_over_their_home_hides_nothing_from_a_purge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int
) -> None:
    @in_namespace
    def test() -> None:
        home = str(tmp_path / "var")
        with fallback(tmp_path), tomb(tmp_path) as (target, number):
            volume, alive = on_a_mapping(target, monkeypatch)
            with process(WAYS["cwd"], target) as pid, fuse.server(home, owner) as silence:
                silence()
                ended = asyncio.run(asyncio.wait_for(closing.purge(volume), 5))
                assert [holder.pid for holder in ended.values] == [pid]
                table = mountinfo.read()
                assert number not in {entry.dev for entry in table}
                assert not os.path.exists(alive)
                assert [e.fstype for e in table if e.target == home] == ["fuse"]

    test()


@in_namespace
def test_what_somebody_mounted_over_their_home_hides_nothing_from_a_closing(tmp_path: Path) -> None:
    home = str(tmp_path / "var")
    with tomb(tmp_path) as (_, number), fuse.server(home, 1000):
        assert mounts.take_away([number]) == 1
        table = mountinfo.read()
        assert number not in {entry.dev for entry in table}
        assert [e.fstype for e in table if e.target == home] == ["fuse"]


@pytest.mark.parametrize("hidden", [False, True])
def test_what_is_hidden_or_left_by_hand_goes_with_the_mapping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    @in_namespace
    def test() -> None:
        with tomb(tmp_path) as (target, number):
            volume, alive = on_a_mapping(target, monkeypatch)
            monkeypatch.setattr(closing, "SETTLE", 0.3)
            elsewhere = tmp_path / "elsewhere"
            elsewhere.mkdir()
            kernel.mount(target, str(elsewhere), None, kernel.MS_BIND)
            with fuse.server(str(tmp_path / "var"), 1000) if hidden else nullcontext():
                if not hidden:
                    kernel.umount2(target)
                asyncio.run(closing.unmap(volume))
                assert not os.path.exists(alive)
                assert number not in {entry.dev for entry in mountinfo.read()}

    test()


@in_namespace
def test_what_cannot_be_reached_keeps_nothing_else_from_going(tmp_path: Path) -> None:
    with tomb(tmp_path) as (target, number):
        Path(target, "secret").touch()
        network, elsewhere = tmp_path / "network", tmp_path / "elsewhere"
        elsewhere.mkdir()
        kernel.mount(target, str(elsewhere), None, kernel.MS_BIND)
        with fuse.server(str(network)):
            kernel.mount(f"{target}/secret", f"{network}/file", None, kernel.MS_BIND)
            with fuse.server(str(network), 1000):
                with pytest.raises(ImmudError, match=f"{network}/file cannot be reached"):
                    mounts.take_away([number])
                left = [entry.target for entry in mountinfo.read() if entry.dev == number]
                assert left == [f"{network}/file"]
