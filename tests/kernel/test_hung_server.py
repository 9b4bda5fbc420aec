"""A FUSE or NFS server that never answers keeps nothing from going, and nobody from being found."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from immud.child import in_child
from immud.early import kernel, mountinfo
from immud.early.mountinfo import top
from immud.errors import Busy
from immud.tomb import closing, holders
from immud.tomb.fs import place
from immud.tomb.holders import pair
from immud.tomb.luks import dm
from immud.tomb.volume import Volume
from immud.watch import table
from tests.kernel.mapped import (
    again,
    on_a_mapping,
    purge,
)
from tests.kernel.test_mount_table import plain, slowly
from tests.kernel.test_tomb import WAYS, process, tomb
from tests.support import fuse
from tests.support.namespaces import in_namespace
from tests.support.process import run

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


@in_namespace
def test_a_mount_behind_a_hung_server_keeps_no_key_and_no_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wiped = tmp_path / "wiped"
    monkeypatch.setattr(dm, "wipe", lambda *_: wiped.touch())
    monkeypatch.setattr(closing, "LOOK", 1.0)
    monkeypatch.setattr(closing, "SETTLE", 0.3)
    with tomb(tmp_path) as (target, number), process(WAYS["cwd"], target) as pid:
        volume, _ = on_a_mapping(target, monkeypatch)
        Path(target, "secret").touch()
        place = tmp_path / "network/file"
        with fuse.server(str(place.parent), valid=0) as silence:
            kernel.mount(f"{target}/secret", str(place), None, kernel.MS_BIND)
            silence()
            with pytest.raises(Busy, match=f"key is wiped and what is mounted at {place} cannot"):
                asyncio.run(closing.purge(volume))
            assert wiped.exists()
            assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert [e.target for e in mountinfo.read() if e.dev == number] == [str(place)]


def looks(where: str, volume: Volume, mapping: dm.Mapping) -> dict[str, Callable[[], object]]:
    """All that is asked about the place of a tomb in the one event loop."""
    return {
        "top": lambda: plain(table.top(where)),
        "stack": lambda: [plain(entry) for entry in table.Reading().stack(where)],
        "visible": lambda: [
            plain(e) for e in table.Reading().visible([where]) if e.target == where
        ],
        "devices": lambda: volume.devices(mapping),
        "settled": lambda: place.settled(f"{where}/below"),
    }


@pytest.mark.parametrize("slow", [False, True])
def test_no_look_at_a_place_behind_a_server_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    @in_namespace
    def test() -> None:
        if slow:
            slowly()
        where = str(tmp_path / "network/file")
        with (
            tomb(tmp_path, fstype="btrfs") as (target, number),
            fuse.server(os.path.dirname(where), valid=0) as silence,
        ):
            Path(target, "secret").touch()
            kernel.mount(f"{target}/secret", where, None, kernel.MS_BIND)
            volume, _ = on_a_mapping(target, monkeypatch)
            (mapping,) = volume.state().mappings
            there = plain(top(mountinfo.read(), where))
            assert there
            before = {name: look() for name, look in looks(where, volume, mapping).items()}
            assert before["top"] == there
            assert before["stack"] == before["visible"] == [there]
            assert number in volume.devices(mapping)
            silence()
            for name, look in looks(where, volume, mapping).items():
                assert asyncio.run(in_child(again, look, timeout=5)) == repr(before[name]), name

    test()
