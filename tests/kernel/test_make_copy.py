"""Homes on their way into a tomb, with real file systems on both sides and a real rsync."""

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from immud.early import kernel
from immud.errors import ImmudError
from immud.make import copying
from tests.kernel.test_make import drive
from tests.support.namespaces import forked, in_namespace


@contextmanager
def both(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A directory of homes on a file system of its own, and the device of another, empty one."""
    # /run is where the tomb is mounted meanwhile, and it is not this machine's.
    kernel.mount("tmpfs", "/run", "tmpfs", 0)
    homes = tmp_path / "homes"
    homes.mkdir()
    with drive(tmp_path / "from") as source, drive(tmp_path / "to") as device:
        for node in (source, device):
            subprocess.run(["mkfs.ext4", "-q", node], check=True)
        kernel.mount(source, str(homes), "ext4", 0)
        try:
            yield homes, device
        finally:
            kernel.umount2(str(homes), kernel.MNT_DETACH)


@contextmanager
def seen(device: str, place: Path) -> Iterator[Path]:
    """What is on the device now."""
    place.mkdir(exist_ok=True)
    kernel.mount(device, str(place), "ext4", 0)
    try:
        yield place
    finally:
        kernel.umount2(str(place))


def copy(device: str, homes: Path) -> list[str]:
    """Copy, in a process that has its own namespace afterwards; how far it was, as it was told."""

    def work() -> list[str]:
        told: list[str] = []
        asyncio.run(copying.copy(device, "ext4", str(homes), told.append))
        return told

    return forked(work)


def facts(top: Path) -> dict[bytes, object]:
    """Everything about everything below `top` that a person could miss."""
    found: dict[bytes, object] = {}
    root = os.fsencode(top)
    inodes: dict[int, bytes] = {}
    for directory, names, files in os.walk(root):
        for name in sorted((*names, *files)):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            relative = os.path.relpath(path, root)
            if relative == b"lost+found":
                continue
            link = os.path.islink(path)
            found[relative] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_nlink,
                status.st_mtime_ns,
                inodes.setdefault(status.st_ino, relative),
                os.readlink(path) if link else None,
                {n: os.getxattr(path, n, follow_symlinks=False)
                 for n in os.listxattr(path, follow_symlinks=False)},
                Path(os.fsdecode(path)).read_bytes() if name in files and not link
                and os.path.isfile(path) else None,
            )  # fmt: skip
    return found


def furnish(homes: Path) -> None:
    """Homes with everything in them that copying programs are known to lose."""
    alice = homes / "alice"
    (alice / "Documents").mkdir(parents=True)
    letter = alice / "Documents" / "letter.txt"
    letter.write_text("a letter\n")
    os.link(letter, alice / "the same letter")
    (alice / "link").symlink_to("/nowhere/at all")
    os.mkfifo(alice / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(alice)
        server.bind("socket")
        os.chdir("/")
    with (alice / "sparse").open("wb") as file:
        file.truncate(30 << 20)
        file.write(b"begin")
        file.seek(29 << 20)
        file.write(b"end")
    Path(os.fsdecode(os.fsencode(alice) + b"/not utf-8: \xff\n")).write_text("x")
    (alice / "-n").write_text("looks like an option")
    os.setxattr(letter, "user.comment", b"dear")
    subprocess.run(["cp", "/bin/true", alice / "ping"], check=True)
    # CAP_NET_RAW, as ping has it (struct vfs_cap_data, revision 2).
    capability = bytes.fromhex("01000002002000000000000000000000" + "00000000")
    os.setxattr(letter, "system.posix_acl_access", _acl())
    for path in (alice, *alice.rglob("*")):
        os.chown(path, 1000, 1001, follow_symlinks=False)
    (homes / "bob").mkdir(mode=0o700)
    os.chown(homes / "bob", 1001, 1001)
    os.chmod(alice / "Documents", 0o2750)
    # Last: a change of owner takes it away.
    os.setxattr(alice / "ping", "security.capability", capability)
    os.utime(letter, ns=(1, 1_234_567_890_123_456_789))


def _acl() -> bytes:
    """User 1002 may read, as the kernel keeps it (linux/posix_acl_xattr.h)."""
    entries = ((0x01, 6, 0xFFFFFFFF), (0x02, 4, 1002), (0x04, 4, 0xFFFFFFFF),
               (0x10, 4, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF))  # fmt: skip
    head = (2).to_bytes(4, "little")
    return head + b"".join(
        tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, rights, who in entries
    )


@in_namespace
def test_everything_arrives_and_the_originals_stay(tmp_path: Path) -> None:
    with both(tmp_path) as (homes, device):
        furnish(homes)
        (homes / "mounted").mkdir()
        kernel.mount("tmpfs", str(homes / "mounted"), "tmpfs", 0)
        (homes / "mounted" / "not of this file system").touch()
        told = copy(device, homes)
        kernel.umount2(str(homes / "mounted"))
        before = facts(homes)
        assert len(before) == 13
        with seen(device, tmp_path / "seen") as place:
            after = facts(place)
            # Its owner and mode are those of what is mounted on it: nobody can ask for others.
            before[b"mounted"] = after[b"mounted"]
            assert after == before
            assert (place / "alice/sparse").stat().st_blocks * 512 < 1 << 20
            assert os.stat(place).st_mode == os.stat(homes).st_mode
        assert re.fullmatch(r"copied \d+%", told[0])
        assert told[-1] == "comparing"


@in_namespace
def test_a_copy_is_gone_on_with_and_what_was_removed_meanwhile_goes(tmp_path: Path) -> None:
    with both(tmp_path) as (homes, device):
        furnish(homes)
        copy(device, homes)
        with seen(device, tmp_path / "seen") as place:
            # As a killed rsync leaves it: a piece of a file, under a name of its own.
            (place / "alice/.letter.Xy12Za").write_text("a le")
            (place / "alice/Documents/letter.txt").unlink()
        (homes / "alice/fifo").unlink()
        copy(device, homes)
        with seen(device, tmp_path / "seen") as place:
            assert facts(place) == facts(homes)


@in_namespace
def test_a_file_with_the_right_time_and_the_wrong_content_is_found(tmp_path: Path) -> None:
    with both(tmp_path) as (homes, device):
        furnish(homes)
        copy(device, homes)
        with seen(device, tmp_path / "seen") as place:
            letter = place / "alice/Documents/letter.txt"
            times = letter.stat()
            letter.write_text("a lettuce"[: times.st_size])
            os.truncate(letter, times.st_size)
            os.utime(letter, ns=(times.st_atime_ns, times.st_mtime_ns))
        copy(device, homes)
        with seen(device, tmp_path / "seen") as place:
            assert facts(place) == facts(homes)


@in_namespace
def test_what_is_written_to_all_the_time_is_named(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "while True:\n"
        "    open(sys.argv[1], 'a').write('x')\n"
        "    time.sleep(0.002)\n"
    )
    with both(tmp_path) as (homes, device):
        furnish(homes)
        log = homes / "alice" / "a log"
        writer = subprocess.Popen([sys.executable, "-c", script, str(log)])
        try:
            while not log.exists():
                time.sleep(0.01)
            with pytest.raises(ImmudError, match=r"all the time.*\n.*alice/a log\n(.*\n)*.*again"):
                copy(device, homes)
        finally:
            writer.kill()
            writer.wait()
        copy(device, homes)


@in_namespace
def test_a_full_tomb_says_so_and_nothing_stays_mounted(tmp_path: Path) -> None:
    with both(tmp_path) as (homes, device):
        (homes / "large").write_bytes(os.urandom(1 << 20) * 40)
        subprocess.run(["mkfs.ext4", "-q", "-F", device, "16M"], check=True)
        with pytest.raises(ImmudError, match="No space left on device"):
            copy(device, homes)
        # Not busy: it was let go.
        subprocess.run(["mkfs.ext4", "-q", "-F", device], check=True)
