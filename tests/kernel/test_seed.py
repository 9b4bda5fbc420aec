"""Preparing a source of /etc or /var: copied whole, marked last, nothing else's content touched."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from immud.early import kernel, sources
from immud.early.elsewhere import UNFINISHED
from immud.enable.seed import is_marked, opened, seed
from immud.errors import ImmudError
from tests.support.namespaces import in_namespace


def system(root: Path) -> None:
    (root / "etc/sub").mkdir(parents=True)
    (root / "etc/machine-id").write_text("0123\n")
    (root / "etc/sub/link").symlink_to("../machine-id")
    (root / "etc").chmod(0o751)
    os.chown(root / "etc/sub", 12, 34)
    (root / "persist").mkdir()


def assert_copied(copy: Path) -> None:
    assert (copy / "machine-id").read_text() == "0123\n"
    assert (copy / "sub/link").readlink() == Path("../machine-id")
    assert ((copy / "sub").stat().st_uid, (copy / "sub").stat().st_gid) == (12, 34)
    assert copy.stat().st_mode & 0o777 == 0o751
    assert (copy / ".immud").exists()
    assert not (copy / UNFINISHED).exists()


def test_a_directory(tmp_path: Path) -> None:
    system(tmp_path)
    assert not is_marked("/persist", str(tmp_path))
    assert seed("/etc", "/persist", str(tmp_path))
    assert_copied(tmp_path / "persist")
    assert is_marked("/persist", str(tmp_path))
    (tmp_path / "etc/later").touch()
    assert not seed("/etc", "/persist", str(tmp_path))
    assert not (tmp_path / "persist/later").exists()


def test_what_has_something_in_it_is_left_alone(tmp_path: Path) -> None:
    system(tmp_path)
    (tmp_path / "persist/letter").write_text("mine")
    with pytest.raises(ImmudError, match=r"is not empty and has no file \.immud"):
        seed("/etc", "/persist", str(tmp_path))
    assert os.listdir(tmp_path / "persist") == ["letter"]


def test_a_copy_that_was_cut_off_is_not_marked_and_is_gone_on_with(tmp_path: Path) -> None:
    system(tmp_path)
    shutil.move(tmp_path / "etc", tmp_path / "away")
    with pytest.raises(ImmudError, match=r"etc.*No such file or directory"):
        seed("/etc", "/persist", str(tmp_path))
    assert UNFINISHED in os.listdir(tmp_path / "persist")
    assert not is_marked("/persist", str(tmp_path))
    shutil.move(tmp_path / "away", tmp_path / "etc")
    assert seed("/etc", "/persist", str(tmp_path))
    assert_copied(tmp_path / "persist")


def cut_off(root: Path, source: str, large: str) -> None:
    """Leave a copy without room for all of it, and so without its mark."""
    (root / large).write_bytes(b"x" * (32 << 20))
    with pytest.raises(ImmudError, match="No space left"):
        seed("/etc", source, str(root))
    (root / large).unlink()


def prepared(root: Path) -> None:
    system(root)
    for name in ("was/link", "was/file", "gone/x"):
        (root / "etc" / name).mkdir(parents=True)


def changed_meanwhile(root: Path) -> None:
    shutil.rmtree(root / "etc/gone")
    for name in ("link", "file"):
        (root / "etc/was" / name).rmdir()
    (root / "etc/was/link").symlink_to("../sub")
    (root / "etc/was/file").touch()


def assert_as_it_is_now(copy: Path) -> None:
    assert_copied(copy)
    assert not (copy / "gone").exists()
    assert not (copy / "zz-large").exists()
    assert (copy / "was/link").is_symlink()
    assert (copy / "was/file").is_file()


@in_namespace
def test_what_changed_since_a_copy_was_cut_off_does_not_come_back(tmp_path: Path) -> None:
    prepared(tmp_path)
    copy = tmp_path / "persist"
    kernel.mount("tmpfs", str(copy), "tmpfs", 0, "size=4M")
    cut_off(tmp_path, "/persist", "etc/zz-large")
    assert (copy / "gone/x").exists()
    changed_meanwhile(tmp_path)
    assert seed("/etc", "/persist", str(tmp_path))
    assert_as_it_is_now(copy)


def test_files_that_vanish_meanwhile_are_no_failure(tmp_path: Path) -> None:
    """As /var has them all the time."""
    system(tmp_path)
    busy = tmp_path / "etc/busy"
    busy.mkdir()
    churn = 'while :; do for i in $(seq 300); do : >"$i"; done; rm -f ./*; done'
    with subprocess.Popen(["sh", "-c", churn], cwd=busy) as process:
        try:
            for number in range(5):
                (tmp_path / f"copy{number}").mkdir()
                assert seed("/etc", f"/copy{number}", str(tmp_path))
                shutil.rmtree(tmp_path / f"copy{number}/busy")
        finally:
            process.kill()
    assert_copied(tmp_path / "copy4")


@in_namespace
@pytest.mark.parametrize("origin", ["marked", "marked by a directory", "once cut off"])
def test_the_copy_of_a_marked_tree_is_marked_once_it_is_whole(tmp_path: Path, origin: str) -> None:
    """As when /var comes from one drive, and is to come from another."""
    system(tmp_path)
    if origin == "marked by a directory":
        (tmp_path / "etc/.immud").mkdir()
    else:
        (tmp_path / "etc/.immud").touch()
    if origin == "once cut off":
        (tmp_path / "etc" / UNFINISHED).touch()
    (tmp_path / "etc/large").write_bytes(b"x" * (2 << 20))
    copy = tmp_path / "persist"
    kernel.mount("tmpfs", str(copy), "tmpfs", 0, "size=1M")
    with pytest.raises(ImmudError, match="No space left"):
        seed("/etc", "/persist", str(tmp_path))
    assert UNFINISHED in os.listdir(copy)
    assert ".immud" not in os.listdir(copy)
    assert not is_marked("/persist", str(tmp_path))
    kernel.mount("tmpfs", str(copy), "tmpfs", kernel.MS_REMOUNT, "size=8M")
    assert seed("/etc", "/persist", str(tmp_path))
    assert_copied(copy)
    assert (copy / ".immud").is_file()
    assert (copy / "large").stat().st_size == 2 << 20


def test_what_has_both_marks_is_not_whole(tmp_path: Path) -> None:
    """As copies were once left that had been cut off."""
    system(tmp_path)
    copy = tmp_path / "persist"
    for name in (".immud", UNFINISHED, "since"):
        (copy / name).write_text("mine")
    # What a power cut left, with the time of its original.
    (copy / "machine-id").write_bytes(bytes(5))
    shutil.copystat(tmp_path / "etc/machine-id", copy / "machine-id")
    assert not is_marked("/persist", str(tmp_path))
    assert seed("/etc", "/persist", str(tmp_path))
    assert_copied(copy)
    assert (copy / "since").read_text() == "mine"
    assert is_marked("/persist", str(tmp_path))


@in_namespace
def test_what_is_mounted_inside_is_not_copied(tmp_path: Path) -> None:
    system(tmp_path)
    (tmp_path / "etc/home").mkdir()
    kernel.mount("tmpfs", str(tmp_path / "etc/home"), "tmpfs", 0)
    (tmp_path / "etc/home/letter").touch()
    assert seed("/etc", "/persist", str(tmp_path))
    assert_copied(tmp_path / "persist")
    assert os.listdir(tmp_path / "persist/home") == []


def labelled(root: Path, size: int) -> tuple[str, int]:
    """A file system that is to be found as "my disk": its device, and what keeps that."""
    kernel.mount("tmpfs", "/run", "tmpfs", 0)
    image = root / "image"
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, timeout=60)
    node, keep = sources.attach_loop(str(image), readonly=False)
    # As udev would do it, link and type both; its directories are the machine's own.
    sources.FILE_SYSTEMS = ("ext4",)
    (root / "my\\x20disk").symlink_to(node)
    sources._BY_TAG["LABEL"] = str(root)
    return node, keep


@in_namespace
def test_a_file_system_by_its_label(tmp_path: Path) -> None:
    system(tmp_path)
    node, keep = labelled(tmp_path, 16 << 20)
    source = "LABEL=my disk"
    assert not is_marked(source)
    assert seed("/etc", source, str(tmp_path))
    assert is_marked(source)
    with opened(source, readonly=False) as fd:
        assert_copied(Path(f"/proc/self/fd/{fd}"))
        assert is_marked(source), "even while it is in use, and writable"
    # A path inside is made, and holds a copy of its own.
    with pytest.raises(OSError, match="No such file"):
        is_marked(f"{source}:/new/etc")
    assert seed("/etc", f"{source}:/new/etc", str(tmp_path))
    with opened(source, readonly=True) as fd:
        assert_copied(Path(f"/proc/self/fd/{fd}/new/etc"))
    # Nothing of it stays mounted.
    assert node not in Path("/proc/self/mountinfo").read_text()
    os.close(keep)


@in_namespace
def test_going_on_with_a_copy_on_a_file_system_by_its_label(tmp_path: Path) -> None:
    """The copy is made in a mount namespace, and where we are and what / is stay the same."""
    prepared(tmp_path)
    labelled(tmp_path, 16 << 20)
    here = os.stat(".")
    cut_off(tmp_path, "LABEL=my disk", "etc/zz-large")
    changed_meanwhile(tmp_path)
    assert seed("/etc", "LABEL=my disk", str(tmp_path))
    with opened("LABEL=my disk", readonly=False) as fd:
        assert_as_it_is_now(Path(f"/proc/self/fd/{fd}"))
    assert os.path.samestat(here, os.stat("."))
    assert "/run/immud/seeding" not in Path("/proc/self/mountinfo").read_text()


@in_namespace
def test_a_directory_behind_a_read_only_mount(tmp_path: Path) -> None:
    """As on a machine whose / is immutable already."""
    system(tmp_path)
    kernel.mount("tmpfs", "/run", "tmpfs", 0)
    kernel.mount(str(tmp_path), str(tmp_path), None, kernel.MS_BIND)
    kernel.mount_setattr(str(tmp_path), set_=kernel.MOUNT_ATTR_RDONLY)
    with pytest.raises(OSError, match="Read-only"):
        (tmp_path / "persist/x").touch()
    assert seed(f"{tmp_path}/etc", f"{tmp_path}/persist")
    assert_copied(tmp_path / "persist")
