"""Checkers on plain files, idmapped mounts, and what the kernel says when errors stop one."""

import asyncio
import os
import pwd
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from immud.early import kernel, mountinfo
from immud.errors import DamagedVolume, ImmudError
from immud.tomb.fs import check, health, mounts
from immud.tomb.fs.filesystems import FILE_SYSTEMS
from immud.watch.kmsg import KernelLog
from tests.kernel.test_tomb import loop_device
from tests.support.filesystems import FILESYSTEMS
from tests.support.namespaces import in_namespace

_SIZES = {"ext4": 16 << 20, "xfs": 320 << 20, "btrfs": 128 << 20}


def make_image(path: Path, fstype: str = "ext4") -> str:
    """A file system with the homes of users 1000 and 1001 on it."""
    with path.open("wb") as file:
        file.truncate(_SIZES[fstype])
    force = "-F" if fstype == "ext4" else "-f"
    subprocess.run([f"mkfs.{fstype}", "-q", force, str(path)], check=True)
    return str(path)


def debugfs(image: str, *requests: str) -> None:
    for request in requests:
        subprocess.run(["debugfs", "-w", "-R", request, image], check=True, capture_output=True)


def checked(image: str) -> tuple[str, list[float]]:
    told: list[float] = []
    return asyncio.run(check.check("ext4", image, told.append)), told


# --- checking -----------------------------------------------------------------------


def test_a_new_file_system_needs_no_checker(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image")
    assert check.is_sound("ext4", image)
    debugfs(image, "set_super_value state 0")
    assert not check.is_sound("ext4", image)
    assert checked(image)[0] == ""
    assert check.is_sound("ext4", image), "the checker has set it right"


def test_what_was_not_closed_is_checked(tmp_path: Path) -> None:
    @in_namespace
    def use() -> None:
        with loop_device(image) as node:
            mounts.mount(node, "ext4", str(tmp_path / "at"), [])
            (tmp_path / "at" / "file").write_text("x")
            os.sync()
            # What is on the disk while it is mounted is what a pulled drive has.
            shutil.copyfile(image, pulled)
            kernel.umount2(str(tmp_path / "at"))

    image, pulled = make_image(tmp_path / "image"), str(tmp_path / "pulled")
    use()
    assert check.is_sound("ext4", image)
    assert not check.is_sound("ext4", pulled)
    assert checked(pulled)[0] == ""
    assert check.is_sound("ext4", pulled)


def test_a_whole_check_tells_how_far_it_is(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image")
    debugfs(image, "set_super_value state 2")
    damage, told = checked(image)
    assert damage == ""
    assert told[-1] == 1.0
    assert len(told) > 2


def test_what_is_beyond_the_checker_is_named_and_left(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image")
    debugfs(image, "write /etc/passwd letter", "set_inode_field letter block[0] 1")
    debugfs(image, "set_super_value state 2")
    damage, _ = checked(image)
    assert "letter" in damage or "Inode 12" in damage
    assert "\n" not in damage
    assert checked(image)[0], "it was not repaired without being asked"


def test_bytes_flipped_anywhere_are_an_answer_and_not_a_crash(tmp_path: Path) -> None:
    """Seeded; none of it is mounted here, for it is this machine's kernel."""
    dice = random.Random(20261123)  # noqa: S311 - to be the same each time
    debugfs(make_image(tmp_path / "image"), "set_super_value state 2")
    pristine = (tmp_path / "image").read_bytes()
    image = tmp_path / "flipped"
    answers = set()
    for _ in range(24):
        data = bytearray(pristine)
        for _ in range(dice.choice((1, 8, 64))):
            at = dice.randrange(1024, dice.choice((2048, 65536, len(data))))
            data[at] ^= 1 << dice.randrange(8)
        image.write_bytes(data)
        if not check.is_sound("ext4", str(image)):
            damage = checked(str(image))[0]
            assert damage.isprintable()
            answers.add(bool(damage))
    assert answers == {True, False}


def test_no_checker_is_started_where_none_does_anything(tmp_path: Path) -> None:
    for fstype in ("xfs", "btrfs"):
        assert check.is_sound(fstype, str(tmp_path / "there is no such file"))
    with pytest.raises(OSError, match="No such file"):
        check.is_sound("ext4", str(tmp_path / "there is no such file"))


def test_a_missing_checker_is_a_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    f2fs = replace(FILE_SYSTEMS["f2fs"], checker="there-is-no-such-checker")
    monkeypatch.setitem(FILE_SYSTEMS, "f2fs", f2fs)
    with pytest.raises(ImmudError, match="install the package f2fs-tools"):
        asyncio.run(check.check("f2fs", str(tmp_path), lambda _: None))


# --- whom the owners are shown as ---------------------------------------------------


@contextmanager
def passwd(tmp_path: Path, *people: str) -> Iterator[None]:
    """These people on this machine, for this namespace."""
    file = tmp_path / "passwd"
    lines = [f"{name}:x:{uid}:{uid}::/home/{name}:/bin/sh" for name, uid in map(str.split, people)]
    file.write_text("\n".join(["root:x:0:0:root:/root:/bin/sh", *lines, ""]))
    kernel.mount(str(file), "/etc/passwd", None, kernel.MS_BIND)
    try:
        assert [entry.pw_name for entry in pwd.getpwall()][1:] == [p.split()[0] for p in people]
        yield
    finally:
        kernel.umount2("/etc/passwd")


def populate(node: str, fstype: str, at: Path, *owners: int) -> None:
    mounts.mount(node, fstype, str(at), [])
    for owner in owners:
        home = at / f"user{owner}"
        home.mkdir()
        (home / "letter").write_text("dear")
        for path in (home, home / "letter"):
            os.chown(path, owner, owner)
    kernel.umount2(str(at))


def owner_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


@pytest.mark.parametrize("fstype", FILESYSTEMS)
def test_the_owner_is_shown_as_the_local_one(tmp_path: Path, fstype: str) -> None:
    @in_namespace
    def test() -> None:
        at = tmp_path / "at"
        people = passwd(tmp_path, "bob 1000", "alice 1001")
        with people, loop_device(make_image(tmp_path / "image", fstype)) as node:
            populate(node, fstype, at, 1000, 1001, 1002)
            mounts.mount(node, fstype, str(at), [], ((1000, "alice"),))
            assert owner_of(at / "user1000") == (1001, 1001)
            assert owner_of(at / "user1000" / "letter") == (1001, 1001)
            assert owner_of(at / "user1001") == (1000, 1000), "whose number was taken"
            assert owner_of(at / "user1002") == (1002, 1002)
            assert owner_of(at) == (0, 0)
            (at / "user1000" / "new").write_text("written by alice")
            os.chown(at / "user1000" / "new", 1001, 1001)
            entry = mountinfo.top(mountinfo.read(), str(at))
            assert entry
            assert "idmapped" in entry.options
            kernel.umount2(str(at))
            # and on the volume it is as it was
            mounts.mount(node, fstype, str(at), [])
            assert owner_of(at / "user1000" / "new") == (1000, 1000)
            assert owner_of(at / "user1001") == (1001, 1001)
            kernel.umount2(str(at))

    test()


@in_namespace
def test_auto_takes_the_one_for_the_other(tmp_path: Path) -> None:
    at = tmp_path / "at"
    people = passwd(tmp_path, "alice 1007")
    with people, loop_device(make_image(tmp_path / "image")) as node:
        populate(node, "ext4", at, 1000)
        mounts.mount(node, "ext4", str(at), [], "auto")
        assert owner_of(at / "user1000") == (1007, 1007)
        # somebody else's home comes on it: now nobody can tell
        (at / "user1009").mkdir()
        os.chown(at / "user1009", 1009, 1009)
        kernel.umount2(str(at))
        before = mountinfo.read()
        with pytest.raises(ImmudError, match="belong to 1000 and 1009"):
            mounts.mount(node, "ext4", str(at), [], "auto")
        assert mountinfo.read() == before


@in_namespace
def test_a_map_to_nobody_or_to_root_is_refused(tmp_path: Path) -> None:
    with loop_device(make_image(tmp_path / "image")) as node:
        for name, said in (("nobody-here", "there is none here"), ("root", "may not")):
            with pytest.raises(ImmudError, match=said):
                mounts.mount(node, "ext4", str(tmp_path / "at"), [], ((1000, name),))
        mounts.mount(node, "ext4", str(tmp_path / "at"), [], ((65534, "nobody"),))
        entry = mountinfo.top(mountinfo.read(), str(tmp_path / "at"))
        assert entry
        assert "idmapped" not in entry.options, "nothing to change"
        kernel.umount2(str(tmp_path / "at"))


# --- errors while it is open --------------------------------------------------------


@in_namespace
def test_errors_while_it_is_open_are_heard_of(tmp_path: Path) -> None:
    """ext4's own switch for it, on a file system of ours."""
    at = tmp_path / "at"
    with loop_device(make_image(tmp_path / "image")) as node:
        name = os.path.basename(node)
        mounts.mount(node, "ext4", str(at), [])
        heard: list[str] = []
        by_another: list[str] = []

        async def listen() -> None:
            log = KernelLog()
            log.listen(heard.append, frozenset({name}))
            log.listen(by_another.append, frozenset({"dm-77"}))
            await asyncio.sleep(0.1)
            assert heard == [], "what was said before is over"
            Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("a test of ours")
            async with asyncio.timeout(5):
                while not heard:
                    await asyncio.sleep(0.01)
            log.leave(heard.append)
            log.leave(by_another.append)

        asyncio.run(listen())
        assert (set(heard), by_another) == ({name}, [])
        entry = mountinfo.top(mountinfo.read(), str(at))
        found = health.of(entry, mapped_read_only=False)
        assert (found.read_only, found.fault) == (True, health.Fault.READ_ONLY)
        assert not health.is_down(str(at))
        kernel.umount2(str(at))
    # The checker sets it right and takes the error off the record, by which 6.12 is known.
    assert not check.is_sound("ext4", str(tmp_path / "image"))
    assert checked(str(tmp_path / "image"))[0] == ""
    assert check.is_sound("ext4", str(tmp_path / "image"))
    record = (tmp_path / "image").read_bytes()[1024 + 0x194 :][:4]
    assert record == bytes(4)


@in_namespace
def test_an_image_that_is_none_is_a_damaged_volume(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image")
    with open(image, "r+b") as file:
        file.seek(1024)
        file.write(bytes(1024))
    with loop_device(image) as node, pytest.raises(DamagedVolume, match="cannot be mounted"):
        mounts.mount(node, "ext4", str(tmp_path / "at"), [])
