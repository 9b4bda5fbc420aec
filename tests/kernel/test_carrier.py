"""Files on drives, as a tomb needs them: without a mount anybody could see."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from immud.child import held, in_child
from immud.early import mountinfo
from immud.errors import ImmudError, WrongKey
from immud.model import TombConfig
from immud.tomb import loops, material
from immud.tomb.drives import carrier
from immud.tomb.drives.drive import number_of
from immud.watch.devices import Device
from tests.support.namespaces import in_namespace
from tests.support.process import run
from tests.support.waiting import until


@contextmanager
def stick(tmp_path: Path, fstype: str = "ext4") -> Iterator[tuple[str, Path]]:
    """A drive with a file system: its node, and where it is mounted for this test to fill it."""
    image, top = tmp_path / "image", tmp_path / "top"
    with image.open("wb") as file:
        file.truncate({"xfs": 320, "btrfs": 128}.get(fstype, 32) << 20)  # the least they take
    run(f"mkfs.{fstype}", *(["-q", "-F"] if fstype.startswith("ext") else []), str(image))
    node = run("losetup", "--find", "--show", str(image)).stdout.strip()
    top.mkdir()
    try:
        yield node, top
    finally:
        run("losetup", "--detach", node)


@contextmanager
def mounted(node: str, top: Path, *options: str) -> Iterator[None]:
    run("mount", *options, node, str(top))
    try:
        yield
    finally:
        run("umount", str(top))


def exclusive(node: str) -> bool:
    """Whether nobody holds the device: no mount of it, seen or unseen."""
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL))
    except OSError:
        return False
    return True


def pulled(tmp_path: Path, node: str, top: Path) -> Path:
    """A copy of the drive as it is when it is pulled now: late.key is in its log alone."""
    with mounted(node, top):
        (top / "a.tomb").write_bytes(b"tomb" + bytes(1 << 20))
        (top / "a.key").write_bytes(b"key\n")
        # Not sync(1) alone, which would leave the log of an XFS as it is.
        run("fsfreeze", "--freeze", str(top))
        run("fsfreeze", "--unfreeze", str(top))
        (top / "late.key").write_bytes(b"late\n")
        for name in ("late.key", "."):
            fd = os.open(top / name, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
        copy = tmp_path / "pulled"
        run("cp", str(tmp_path / "image"), str(copy))
    return copy


def orphaned(tmp_path: Path, node: str, top: Path) -> Path:
    """One that was pulled with a deleted file open, which is known at its place already."""
    with mounted(node, top):
        (top / "a.tomb").write_bytes(b"tomb" + bytes(1 << 20))
        (top / "a.key").write_bytes(b"key\n")
        with (top / "gone").open("wb") as file:
            file.write(bytes(100000))
            (top / "gone").unlink()
            run("fsfreeze", "--freeze", str(top))
            copy = tmp_path / "pulled"
            run("cp", str(tmp_path / "image"), str(copy))
            run("fsfreeze", "--unfreeze", str(top))
    return copy


@contextmanager
def plugged(image: Path, *options: str) -> Iterator[str]:
    node = run("losetup", *options, "--find", "--show", str(image)).stdout.strip()
    try:
        yield node
    finally:
        until(lambda: exclusive(node))
        run("losetup", "--detach", node)


def checksum(image: Path) -> str:
    return hashlib.sha256(image.read_bytes()).hexdigest()


async def first_bytes(node: str, fstype: str, *, readonly: bool) -> tuple[bytes, str]:
    """What a tomb's file on a drive begins with, and whether its device is read-only."""
    async with held(carrier.attach, node, fstype, "a.tomb", readonly) as loop:
        fd = os.open(loop, os.O_RDONLY)
        try:
            said = Path(f"/sys/block/{os.path.basename(loop)}/ro").read_text().strip()
            return os.pread(fd, 4, 0), said
        finally:
            os.close(fd)


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
@in_namespace
def test_a_tomb_s_file_becomes_a_device_and_nothing_is_mounted(tmp_path: Path, fstype: str) -> None:
    with stick(tmp_path, fstype) as (node, top):
        with mounted(node, top):
            (top / "tombs").mkdir()
            (top / "tombs/a.tomb").write_bytes(b"tomb" + bytes(1 << 20))
        before = mountinfo.read()

        async def use() -> str:
            async with held(carrier.attach, node, fstype, "tombs/a.tomb") as loop:
                assert mountinfo.read() == before
                assert loops.ground(number_of(loop)) == number_of(node)
                assert not exclusive(node)
                fd = os.open(loop, os.O_RDWR)
                assert os.pread(fd, 4, 0) == b"tomb"
                os.pwrite(fd, b"more", 0)
                os.fsync(fd)
                os.close(fd)
                assert isinstance(loop, str)
                return loop

        loop = asyncio.run(use())
        until(lambda: not os.path.exists(f"/sys/block/{os.path.basename(loop)}/loop"))
        until(lambda: exclusive(node))  # its file system went with the last user of the file
        with mounted(node, top):
            assert (top / "tombs/a.tomb").read_bytes()[:4] == b"more"


@in_namespace
def test_who_has_it_open_keeps_it_and_the_file_system(tmp_path: Path) -> None:
    with stick(tmp_path) as (node, top):
        with mounted(node, top):
            (top / "a.tomb").write_bytes(bytes(1 << 20))

        async def use() -> int:
            async with held(carrier.attach, node, "ext4", "a.tomb") as loop:
                return os.open(loop, os.O_RDONLY)

        fd = asyncio.run(use())
        assert not exclusive(node)
        os.close(fd)
        assert exclusive(node)


@in_namespace
def test_a_file_that_is_open_already_is_not_opened_twice(tmp_path: Path) -> None:
    """As by tomb(1), from where a desktop has mounted the stick."""
    with stick(tmp_path) as (node, top), mounted(node, top):
        (top / "a.tomb").write_bytes(bytes(1 << 20))
        (top / "b.tomb").write_bytes(bytes(1 << 20))
        other = run("losetup", "--find", "--show", str(top / "a.tomb")).stdout.strip()
        try:
            with pytest.raises(ImmudError, match=f"in use already, as {other}"):
                asyncio.run(in_child(carrier.attach, node, "ext4", "a.tomb"))
            asyncio.run(in_child(carrier.attach, node, "ext4", "b.tomb"))
        finally:
            run("losetup", "--detach", other)
        asyncio.run(in_child(carrier.attach, node, "ext4", "a.tomb"))


@in_namespace
def test_a_read_only_drive_makes_a_read_only_device(tmp_path: Path) -> None:
    with stick(tmp_path) as (node, top), mounted(node, top):
        (top / "a.tomb").write_bytes(bytes(1 << 20))

    async def use(node: str) -> str:
        async with held(carrier.attach, node, "ext4", "a.tomb") as loop:
            return Path(f"/sys/block/{os.path.basename(loop)}/ro").read_text().strip()

    image = str(tmp_path / "image")
    node = run("losetup", "--read-only", "--find", "--show", image).stdout.strip()
    try:
        assert asyncio.run(use(node)) == "1"
    finally:
        run("losetup", "--detach", node)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("missing", "missing on /dev/loop.* is not there"),
        ("link", "which is not followed"),
        ("outside/passwd", "which is not followed"),
        ("directory", "directory on .* cannot be used: Is a directory|is not a regular file"),
        ("pipe", "is not a regular file"),
    ],
)
@in_namespace
def test_what_is_no_file_of_the_drive_is_refused(tmp_path: Path, path: str, said: str) -> None:
    with stick(tmp_path) as (node, top):
        with mounted(node, top):
            (top / "link").symlink_to("/etc/shadow")
            (top / "outside").symlink_to("/etc")
            (top / "directory").mkdir()
            os.mkfifo(top / "pipe")
        for function in (carrier.read_key, carrier.attach):
            with pytest.raises(ImmudError, match=said):
                asyncio.run(in_child(function, node, "ext4", path))
        assert exclusive(node)


@in_namespace
def test_a_key_is_read_although_a_desktop_has_mounted_its_drive(tmp_path: Path) -> None:
    with stick(tmp_path) as (node, top):
        with mounted(node, top):
            (top / "a.key").write_bytes(b"key\n")
            (top / "a.key").chmod(0o644)
            assert carrier.read_key(node, "ext4", "a.key") == b"key\n"
            assert top.joinpath("still").write_text("writable")
        assert exclusive(node)
        assert carrier.read_key(node, "ext4", "a.key") == b"key\n"
        assert exclusive(node)


@in_namespace
def test_a_key_that_is_no_key_is_not_read_for_ever(tmp_path: Path) -> None:
    with stick(tmp_path) as (node, top):
        with mounted(node, top), (top / "a.key").open("wb") as file:
            file.truncate(9 << 20)
        with pytest.raises(ImmudError, match="longer than"):
            carrier.read_key(node, "ext4", "a.key")


@in_namespace
def test_a_child_that_is_held_ends_with_its_parent(tmp_path: Path) -> None:
    """kill -9 of the daemon, while a loop device has no other user yet."""
    with stick(tmp_path) as (node, top):
        with mounted(node, top):
            (top / "a.tomb").write_bytes(bytes(1 << 20))
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:

            async def use() -> None:
                async with held(carrier.attach, node, "ext4", "a.tomb") as loop:
                    os.write(writing, loop.encode())
                    os.kill(os.getpid(), 9)

            asyncio.run(use())
            os._exit(1)
        loop = os.read(reading, 100).decode()
        os.waitpid(pid, 0)
        until(lambda: not os.path.exists(f"/sys/block/{os.path.basename(loop)}/loop"))
        until(lambda: exclusive(node))


LOGGED = pytest.mark.parametrize("fstype", ["ext4", "ext3", "xfs"])


@LOGGED
@in_namespace
def test_nothing_is_written_to_a_pulled_drive_that_is_to_be_read(
    tmp_path: Path, fstype: str
) -> None:
    """Its log waits to be replayed, which the kernel does read-only or not."""
    with stick(tmp_path, fstype) as (node, top):
        image = pulled(tmp_path, node, top)
        before = checksum(image)
        with plugged(image) as drive:
            assert carrier.read_key(drive, fstype, "a.key") == b"key\n"
            found = asyncio.run(first_bytes(drive, fstype, readonly=True))
            assert found == (b"tomb", "1")
        assert checksum(image) == before
        # The test is one: there is a log to replay.
        with plugged(image) as drive, mounted(drive, top, "-o", "ro"):
            pass
        assert checksum(image) != before


@LOGGED
@pytest.mark.parametrize("readonly", [False, True])
@in_namespace
def test_a_pulled_drive_whose_switch_forbids_writing_is_read(
    tmp_path: Path, fstype: str, readonly: bool
) -> None:
    with stick(tmp_path, fstype) as (node, top):
        image = pulled(tmp_path, node, top)
        with plugged(image, "--read-only") as drive:
            assert carrier.read_key(drive, fstype, "a.key", readonly) == b"key\n"
            found = asyncio.run(first_bytes(drive, fstype, readonly=readonly))
            assert found == (b"tomb", "1")


@in_namespace
def test_what_ext4_would_delete_keeps_a_drive_from_being_read_only(tmp_path: Path) -> None:
    """The kernel does that in spite of ro and noload, and past the log, unless it cannot."""
    with stick(tmp_path) as (node, top):
        image = orphaned(tmp_path, node, top)
        before = checksum(image)
        with plugged(image) as drive:
            with pytest.raises(ImmudError, match=f"run: blockdev --setro {drive}; then"):
                asyncio.run(first_bytes(drive, "ext4", readonly=True))
            with pytest.raises(ImmudError, match="was pulled"):
                carrier.read_key(drive, "ext4", "a.key", readonly=True)
        # As blockdev(8) makes it; a loop device would keep that for its next file.
        with plugged(image, "--read-only") as drive:
            assert carrier.read_key(drive, "ext4", "a.key", readonly=True) == b"key\n"
            found = asyncio.run(first_bytes(drive, "ext4", readonly=True))
            assert found == (b"tomb", "1")
        assert checksum(image) == before
        with plugged(image) as drive:
            assert carrier.read_key(drive, "ext4", "a.key") == b"key\n"
            # A desktop that has mounted it has done it by then.
            with mounted(drive, top):
                found = asyncio.run(first_bytes(drive, "ext4", readonly=True))
                assert found == (b"tomb", "1")
        run("fsck.ext4", "-fn", str(image))  # and it is none the worse


@in_namespace
def test_a_key_that_is_in_the_log_alone_is_read_unless_nothing_may_be_written(
    tmp_path: Path,
) -> None:
    with stick(tmp_path, "xfs") as (node, top):
        image = pulled(tmp_path, node, top)
        before = checksum(image)
        with plugged(image) as drive:
            with pytest.raises(ImmudError, match=r"is not there\. If the drive was pulled"):
                carrier.read_key(drive, "xfs", "late.key", readonly=True)
            config = replace(PLAIN, key="LABEL=KEYS:/late.key")
            with pytest.raises(ImmudError, match="which was not looked at"):
                found(config, drive, drive, None, fstype="xfs", read_only=True)
            assert checksum(image) == before
            assert found(config, drive, drive, None, fstype="xfs") == (b"late\n",)


@in_namespace
def test_nothing_is_written_to_a_pulled_btrfs_for_its_key(tmp_path: Path) -> None:
    with stick(tmp_path, "btrfs") as (node, top):
        image = pulled(tmp_path, node, top)
    before = checksum(image)
    with plugged(image) as drive:
        assert carrier.read_key(drive, "btrfs", "a.key") == b"key\n"
    assert checksum(image) == before


@in_namespace
def test_an_ext4_without_a_log_is_read_all_the_same(tmp_path: Path) -> None:
    with stick(tmp_path) as (node, _):
        run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", node)
        with mounted(node, tmp_path / "top"):
            (tmp_path / "top/a.key").write_bytes(b"key\n")
        assert carrier.read_key(node, "ext4", "a.key") == b"key\n"


DYNE = TombConfig("home", label="STICK", file="a.tomb", key="drive:a.key")
PLAIN = TombConfig("home", label="TOMB", key="LABEL=KEYS:/a.key")
GIVEN = b"given"


def found(
    config: TombConfig,
    node: str,
    key_drive: str,
    passphrase: bytes | None,
    *,
    fstype: str = "ext4",
    read_only: bool = False,
) -> tuple[bytes, ...]:
    """What opens the tomb of `config` on `node`, with another drive for its key or none."""
    device = Device("/devices/a", node, number_of(node), fs_type=fstype)
    keys = Device("/devices/b", key_drive, "0:0", fs_type=fstype) if key_drive else None
    return asyncio.run(material.secrets(config, device, keys, passphrase, read_only=read_only))


@in_namespace
def test_what_opens_a_tomb_by_where_its_key_is(tmp_path: Path) -> None:
    with stick(tmp_path) as (node, top):
        with mounted(node, top):
            (top / "a.key").write_bytes(b"raw\n")
        assert found(DYNE, node, "", None) == (b"raw\n",)
        assert found(DYNE, node, "", GIVEN) == (b"raw\n",), "the key needs no passphrase"
        assert found(PLAIN, node, node, None) == (b"raw\n",)
        assert found(PLAIN, node, node, GIVEN) == (), "a passphrase of the volume's own"
        assert found(PLAIN, node, "", GIVEN) == ()
        for config, passphrase in ((PLAIN, None), (replace(PLAIN, file="a"), GIVEN)):
            with pytest.raises(ImmudError, match="LABEL=KEYS, is gone; plug it in again"):
                found(config, node, "", passphrase)
        assert found(replace(DYNE, key="ask"), node, "", None) == ()


@in_namespace
def test_a_key_of_dyne_s_is_one_wherever_it_is(tmp_path: Path) -> None:
    with stick(tmp_path) as (node, top):
        local = tmp_path / "local.key"
        home = {**os.environ, "HOME": str(tmp_path)}
        forge = ("tomb", "forge", "-f", "--unsafe", "--tomb-pwd", "words", str(local))
        run(*forge, env=home)
        with mounted(node, top):
            (top / "a.key").write_bytes(local.read_bytes())
        here = replace(DYNE, key=str(local))
        secrets = found(here, node, "", b"words")
        assert len(secrets[0]) > 480
        assert found(DYNE, node, "", b"words") == secrets
        assert found(PLAIN, node, node, b"words") == secrets
        with pytest.raises(WrongKey):
            found(DYNE, node, "", b"other words")
        local.chmod(0o644)
        with pytest.raises(ImmudError, match="chmod 0600"):
            found(here, node, "", b"words")
