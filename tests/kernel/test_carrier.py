"""Files on drives, as a tomb needs them: without a mount anybody could see."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from immud.child import held, in_child
from immud.early import mountinfo
from immud.errors import ImmudError, WrongKey
from immud.model import TombConfig
from immud.tomb import carrier, loops, material
from immud.tomb.drive import number_of
from immud.watch.devices import Device
from tests.support.namespaces import in_namespace
from tests.support.process import run


@contextmanager
def stick(tmp_path: Path, fstype: str = "ext4") -> Iterator[tuple[str, Path]]:
    """A drive with a file system: its node, and where it is mounted for this test to fill it."""
    image, top = tmp_path / "image", tmp_path / "top"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    run(f"mkfs.{fstype}", *(["-q", "-F"] if fstype == "ext4" else []), str(image))
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


def until(true: Callable[[], bool]) -> None:
    """What the kernel does when a process has ended, it does in its own time."""
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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


DYNE = TombConfig("home", label="STICK", file="a.tomb", key="drive:a.key")
PLAIN = TombConfig("home", label="TOMB", key="LABEL=KEYS:/a.key")
GIVEN = b"given"


def found(
    config: TombConfig, node: str, key_drive: str, passphrase: bytes | None
) -> tuple[bytes, ...]:
    """What opens the tomb of `config` on `node`, with another drive for its key or none."""
    device = Device("/devices/a", node, number_of(node), fs_type="ext4")
    keys = Device("/devices/b", key_drive, "0:0", fs_type="ext4") if key_drive else None
    return asyncio.run(material.secrets(config, device, keys, passphrase))


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
