"""Who holds a file system whose files do not show that they are on it, and who does not."""

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from immud.child import in_child
from immud.early import kernel, mountinfo
from immud.early.mountinfo import top
from immud.errors import Busy
from immud.model import TombConfig
from immud.tomb import closing, holders, loops
from immud.tomb.absence.fallback import Fallback
from immud.tomb.absence.managers import UserManagers
from immud.tomb.drives import below
from immud.tomb.fs import mounting, mounts
from immud.tomb.holders import Holders, pair
from immud.tomb.luks import dm
from immud.tomb.luks.unlock import Inner
from immud.tomb.volume import Volume
from immud.watch.devices import Device
from tests.kernel.test_tomb import WAYS, loop_device, make_image, process, tomb
from tests.support import fuse
from tests.support.namespaces import in_namespace
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
            place = Fallback(config, target, UserManagers(lambda: None), lambda: None)
            guard = place.guard([number])
            assert guard
            assert holders.scan(*guard) == []
            with pytest.raises(Busy, match="in use"):
                mounts.mount(node, "ext4", target, ["ro"])
            mounts.mount(node, "ext4", target, [])
            assert (Path(target) / "file").exists()
        mounts.take_away([number])
        assert not below.claimed(node)


# --- a server that does not answer ----------------------------------------------------


@in_namespace
def test_a_hung_server_keeps_nobody_from_being_found(tmp_path: Path) -> None:
    with (
        fuse.server(str(tmp_path / "network")) as silence,
        tomb(tmp_path) as (target, number),
        process(WAYS["cwd"], str(tmp_path / "network")),
        process("held = open(sys.argv[1])", str(tmp_path / "network/file")),
        process(WAYS["open file"], target) as pid,
    ):
        silence()
        found = asyncio.run(asyncio.wait_for(holders.find([pair(number)]), 5))
        assert [h.pid for h in found.values] == [pid]


@in_namespace
def test_a_loop_device_on_a_hung_server_keeps_nothing_from_being_purged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wiped(name: str, _: int) -> None:
        assert not any(entry.source == name for entry in mountinfo.read())
        (tmp_path / "wiped").touch()

    with fuse.server(str(tmp_path / "network")) as silence, tomb(tmp_path) as (target, _):
        command = ["losetup", "--find", "--show", str(tmp_path / "network/file")]
        node = run(*command).stdout.strip()
        try:
            with process(WAYS["cwd"], target) as pid:
                silence()
                monkeypatch.setattr(closing, "LOOK", 1.0)
                monkeypatch.setattr(dm, "wipe", wiped)
                assert purge(target, monkeypatch) == [(pid, "cwd")]
                assert (tmp_path / "wiped").exists()
        finally:
            run("losetup", "--detach", node)
