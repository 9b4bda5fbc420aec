"""File systems from elsewhere, mounted aside: by device, by image, with a path inside."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from immud.early import kernel, sources
from tests.support.namespaces import in_namespace


def tree(directory: Path) -> Path:
    made = directory / "tree"
    (made / "sub/dir").mkdir(parents=True)
    (made / "sub/dir/file").write_text("inside")
    return made


def image(directory: Path, fstype: str) -> Path:
    made = directory / "image"
    source = str(tree(directory))
    subprocess.run(
        {
            "ext4": ["mkfs.ext4", "-q", "-d", source, str(made), "8M"],
            "erofs": ["mkfs.erofs", "--quiet", str(made), source],
            "squashfs": ["mksquashfs", source, str(made), "-quiet", "-no-progress"],
        }[fstype],
        check=True,
        capture_output=True,
    )
    return made


def content(fd: int, path: str) -> str:
    return Path(f"/proc/self/fd/{fd}/{path}").read_text()


@pytest.mark.parametrize("fstype", ["ext4", "erofs", "squashfs"])
@in_namespace
def test_an_image_file(tmp_path: Path, fstype: str) -> None:
    fd = sources.tree(str(image(tmp_path, fstype)), readonly=True)
    assert content(fd, "sub/dir/file") == "inside"
    with pytest.raises(OSError, match="Read-only") as refused:
        os.open(f"/proc/self/fd/{fd}/new", os.O_WRONLY | os.O_CREAT)
    assert refused.value.errno == errno.EROFS


@in_namespace
def test_a_device_by_its_tag_with_a_path_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, keep = sources.attach_loop(str(image(tmp_path, "ext4")), readonly=False)
    monkeypatch.setitem(sources._BY_TAG, "LABEL", str(tmp_path))
    (tmp_path / "my\\x20data").symlink_to(node)
    fd = sources.tree("LABEL=my data:/sub/dir", readonly=False)
    assert content(fd, "file") == "inside"
    # the same file system again, for another tree of it: shared, not refused
    other = sources.tree("LABEL=my data:/sub", readonly=False)
    assert content(other, "dir/file") == "inside"
    os.mkdir(tmp_path / "here")
    kernel.move_mount(fd, str(tmp_path / "here"))
    assert sources.is_mounted(str(tmp_path / "here"), "LABEL=my data:/sub/dir")
    assert not sources.is_mounted(str(tmp_path / "here"), "LABEL=my data:/other")
    assert not sources.is_mounted("/", "LABEL=my data")
    for number in (fd, other, keep):
        os.close(number)


@in_namespace
def test_a_writable_file_system_is_shared_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where one device has both /usr and /var."""
    node, keep = sources.attach_loop(str(image(tmp_path, "ext4")), readonly=False)
    monkeypatch.setitem(sources._BY_TAG, "LABEL", str(tmp_path))
    (tmp_path / "data").symlink_to(node)
    var = sources.tree("LABEL=data:/sub/dir", readonly=False)
    usr = sources.tree("LABEL=data:/sub", readonly=True)
    assert content(usr, "dir/file") == "inside"
    for number in (var, usr, keep):
        os.close(number)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(OSError, match="LABEL=nowhere is not there"):
        sources.tree("LABEL=nowhere", readonly=True)


def test_something_that_is_no_file_system(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    with pytest.raises(OSError, match="as btrfs"):
        sources.tree(str(tmp_path / "image"), readonly=True)
