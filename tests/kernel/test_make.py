"""Real drives (loop devices) that may not become tombs, and the drop-in that enrolling writes."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from immud.config.load import load
from immud.early import kernel
from immud.errors import Busy, ConfigError, ImmudError, NoSuchTomb, TargetExists
from immud.make import enrolment
from immud.make.execute import format_, locked, make_file_system, mark
from immud.make.observe import look
from immud.make.refuse import SMALLEST, check, resumes
from immud.make.steps import Format
from immud.make.target import Stage, Target, Wish
from immud.model import Config, TombConfig
from immud.tomb.drives import below
from immud.tomb.drives.drive import forbid_writing, switch_off
from immud.tomb.fs import blkid
from immud.tomb.luks import identity
from tests.support.namespaces import in_namespace

CHEAP = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
KEY = b"key"


@contextmanager
def drive(path: Path, size: int = 64 << 20, *options: str) -> Iterator[str]:
    """A loop device."""
    path.touch()
    os.truncate(path, size)
    command = ["losetup", "--find", "--show", *options, str(path)]
    node = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield node
    finally:
        subprocess.run(["losetup", "--detach", node], check=True)


def seen(node: str, config: Config | None = None) -> Target:
    return asyncio.run(look(node, config or Config()))


def luks(node: str, stage: Stage = Stage.NONE) -> None:
    asyncio.run(format_(Format(node, "home", stage, CHEAP), KEY))


def test_an_empty_drive_is_seen_as_one(tmp_path: Path) -> None:
    with drive(tmp_path / "image") as node:
        target = seen(node)
        assert (target.devnode, target.disk, target.size) == (node, node, 64 << 20)
        assert (target.content, target.uses, target.system) == ((), (), ())
        check(target, Wish())


@pytest.mark.parametrize("path", ["/dev/null", "/etc/passwd", "/dev/nonexistent"])
def test_what_is_no_block_device(path: str) -> None:
    with pytest.raises(ImmudError, match="lsblk"):
        seen(path)


@in_namespace
def test_what_is_in_use_is_refused_and_who_uses_it_is_said(tmp_path: Path) -> None:
    with drive(tmp_path / "image") as node:
        subprocess.run(["mkfs.ext4", "-q", "-L", "photos", node], check=True)
        assert seen(node).content == (f"ext4 (photos) on {node}",)
        os.mkdir(tmp_path / "place")
        kernel.mount(node, str(tmp_path / "place"), "ext4", 0)
        try:
            target = seen(node)
            for wish in (Wish(), Wish(overwrite=True)):
                with pytest.raises(Busy, match=f"{node} is mounted at {tmp_path}/place"):
                    check(target, wish)
            with pytest.raises(Busy, match=f"{node} is mounted at {tmp_path}/place"):
                switch_off(f"/devices/virtual/block/{os.path.basename(node)}", node)
            # As somebody sees it who does not see that mount.
            assert "holds it exclusively" in "".join(_elsewhere(node))
        finally:
            kernel.umount2(str(tmp_path / "place"))
        check(seen(node), Wish(overwrite=True))


@in_namespace
def test_a_drive_is_not_switched_off_under_another_file_system(tmp_path: Path) -> None:
    """btrfs has a number of its own, and a mount in another namespace is in no table of ours."""
    place = tmp_path / "place"
    place.mkdir()
    with drive(tmp_path / "image", 128 << 20) as node:
        disk = f"/devices/virtual/block/{os.path.basename(node)}"
        subprocess.run(["mkfs.btrfs", "-q", node], check=True)
        kernel.mount(node, str(place), "btrfs", 0)
        other = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        try:
            with pytest.raises(Busy, match=f"{node} is mounted at {place}"):
                switch_off(disk, node)
            kernel.unshare()
            kernel.umount2(str(place))
            with pytest.raises(Busy, match="such as a mount in a container"):
                switch_off(disk, node)
        finally:
            kernel.setns(other)
            os.close(other)
            kernel.umount2(str(place))
        switch_off(disk, node)


def test_writing_can_be_forbidden(tmp_path: Path) -> None:
    with drive(tmp_path / "image") as node:
        forbid_writing(node)
        try:
            assert seen(node).read_only
            with pytest.raises(PermissionError), open(node, "r+b", buffering=0) as device:
                device.write(b"x" * 512)
        finally:  # a loop device would keep it for its next file
            subprocess.run(["blockdev", "--setrw", node], check=True)


def _elsewhere(node: str) -> tuple[str, ...]:
    """The uses of `node` as seen without the mount table."""
    read, below.mountinfo.read = below.mountinfo.read, lambda *_: ()
    try:
        return seen(node).uses
    finally:
        below.mountinfo.read = read


def test_data_of_an_unknown_kind_is_not_emptiness(tmp_path: Path) -> None:
    with drive(tmp_path / "image") as node:
        with open(node, "r+b") as device:
            device.seek(70000)
            device.write(b"\1")
        with pytest.raises(TargetExists, match="VeraCrypt"):
            check(seen(node), Wish())


def test_a_read_only_drive(tmp_path: Path) -> None:
    with drive(tmp_path / "image", 64 << 20, "--read-only") as node:
        target = seen(node)
    with pytest.raises(ImmudError, match="read-only"):
        check(target, Wish())


def test_a_tomb_of_this_machine(tmp_path: Path) -> None:
    with drive(tmp_path / "image") as node:
        luks(node)
        uuid = asyncio.run(enrolment.luks_uuid(node))
        target = seen(node, Config(tombs=(TombConfig("mine", uuid=uuid),)))
        with pytest.raises(TargetExists, match="immud tomb forget mine"):
            check(target, Wish(overwrite=True))


def test_the_header_says_how_far_an_interrupted_run_came(tmp_path: Path) -> None:
    with drive(tmp_path / "image") as node:
        luks(node, Stage.FORMATTING)
        assert seen(node).stage is Stage.FORMATTING
        check(seen(node), Wish())
        asyncio.run(mark(node, "home", Stage.COPYING))
        target = seen(node)
        assert (target.stage, target.volume) == (Stage.COPYING, node)
        assert resumes(target, Wish(source="/home"))
        asyncio.run(mark(node, "home", Stage.NONE))
        target = seen(node)
        assert target.stage is Stage.NONE
        assert target.content == (f"crypto_LUKS (home) on {node}",)
        with pytest.raises(TargetExists, match="--overwrite"):
            check(target, Wish())


@pytest.mark.parametrize("filesystem", SMALLEST)
def test_the_smallest_file_system_of_each_kind_can_be_made(tmp_path: Path, filesystem: str) -> None:
    with drive(tmp_path / "image", SMALLEST[filesystem]) as node:
        asyncio.run(make_file_system(node, filesystem, "a-name-of-thirty-one-characters"))
        kind, uuid = blkid.probe(node, (filesystem,))
        assert (kind, len(uuid)) == (filesystem, 36)
        asyncio.run(make_file_system(node, filesystem, "home"))
        assert seen(node).content == (f"{filesystem} (home) on {node}",)


def test_the_lock_is_the_one_udev_takes(tmp_path: Path) -> None:
    with drive(tmp_path / "image") as node:
        flock = ["flock", "--nonblock", "--shared", node, "true"]
        with locked(seen(node), lambda: pytest.fail("nobody else has it")):
            assert subprocess.run(flock, check=False).returncode == 1
        assert subprocess.run(flock, check=False).returncode == 0


# --- enrolling, in a system of its own -------------------------------------------


def own_etc() -> Path:
    """An empty /etc, seen by this namespace alone."""
    kernel.mount("tmpfs", "/etc", "tmpfs", 0)
    os.mkdir("/etc/immud")
    return Path("/etc/immud")


@in_namespace
def test_enrolled_and_forgotten(tmp_path: Path) -> None:
    etc = own_etc()
    with drive(tmp_path / "image") as node:
        luks(node)
        wish = Wish(name="mine", mount="/var/home", key='/etc/immud/k \u20ac "1"')
        assert asyncio.run(enrolment.enrol(node, wish, 'Maker "Stick" 64.0 MiB', "inner"))
        assert identity.read("mine") == replace(identity.of(node), file_system="inner")
        uuid = asyncio.run(enrolment.luks_uuid(node))
    (tomb,) = load().tombs
    assert (tomb.name, tomb.uuid, tomb.key, tomb.mount) == ("mine", uuid, wish.key, wish.mount)
    assert [path.name for path in etc.rglob("*.toml*")] == ["immud.toml.d", "tomb-mine.toml"]
    assert enrolment.written("mine") == ["/etc/immud/immud.toml.d/tomb-mine.toml:4"]
    enrolment.forget("mine")
    assert load().tombs == ()
    assert identity.read("mine") is None
    assert [path for path in etc.rglob("*") if path.is_file()] == []
    with pytest.raises(NoSuchTomb, match="configured: none"):
        enrolment.forget("mine")


@in_namespace
def test_what_cannot_be_enrolled_changes_nothing(tmp_path: Path) -> None:
    etc = own_etc()
    table = '[tomb.home]\nuuid = "{}"\n'
    with drive(tmp_path / "image") as node:
        with pytest.raises(ImmudError, match="holds no LUKS volume"):
            asyncio.run(enrolment.enrol(node, Wish(), ""))
        luks(node)
        uuid = asyncio.run(enrolment.luks_uuid(node))
        (etc / "immud.toml").write_text("# mine\n" + table.format(uuid))
        with pytest.raises(TargetExists, match="is tomb home already"):
            asyncio.run(enrolment.enrol(node, Wish("other", mount="/var/other"), ""))
        (etc / "immud.toml").write_text("# mine\n" + table.format(enrolment.NO_UUID))
        with pytest.raises(TargetExists, match=r"/etc/immud/immud\.toml:2"):
            asyncio.run(enrolment.enrol(node, Wish("home"), ""))
        for mount in ("/var/home", "/var/lib"):
            with pytest.raises(ConfigError, match=r"^tomb\.other\.mount: "):
                asyncio.run(enrolment.enrol(node, Wish("other", mount=mount), ""))
        (etc / "immud.toml").write_text("[usr]\nnonsense = 1\n")
        with pytest.raises(ConfigError, match="nonsense"):
            asyncio.run(enrolment.enrol(node, Wish(), ""))
    assert [path.name for path in etc.rglob("*")] == ["immud.toml"]


@in_namespace
def test_a_table_that_is_there_gets_a_pin(tmp_path: Path) -> None:
    etc = own_etc()
    with drive(tmp_path / "image") as node:
        luks(node)
        uuid = asyncio.run(enrolment.luks_uuid(node))
        (etc / "immud.toml").write_text(f'[tomb.home]\nuuid = "{uuid}"\n')
        assert asyncio.run(enrolment.enrol(node, Wish(), "")) is False
        assert identity.read("home") == identity.of(node)
    assert sorted(p.name for p in etc.rglob("*") if p.is_file()) == ["home.json", "immud.toml"]


@in_namespace
def test_forgetting_leaves_alone_what_was_not_written_by_enrolling(tmp_path: Path) -> None:
    etc = own_etc()
    (etc / "immud.toml").write_text(f'\n[tomb.home]\nuuid = "{enrolment.NO_UUID}"\n')
    with pytest.raises(ImmudError, match=r"by hand, in /etc/immud/immud\.toml:2"):
        enrolment.forget("home")
    (etc / "immud.toml").rename(etc / "elsewhere")
    ours = Path(enrolment.path("home"))
    ours.parent.mkdir()
    ours.write_bytes(enrolment.table(Wish(), enrolment.NO_UUID, "") + b"[root]\nreadonly=false\n")
    before = ours.read_bytes()
    with pytest.raises(ImmudError, match=r"more in it than tomb home \(\[root\]\)"):
        enrolment.forget("home")
    assert ours.read_bytes() == before
