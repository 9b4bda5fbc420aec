"""Paths on a hostile volume: links, mounts, pipes, and directories that change under the walk."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from immud.early import kernel
from immud.errors import ImmudError
from immud.tomb.fs import beneath
from tests.support.namespaces import in_namespace


@contextmanager
def top_of(path: Path) -> Iterator[int]:
    fd = os.open(path, beneath.DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume with a secret beside it."""
    (tmp_path / "secret").write_text("of the machine")
    volume = tmp_path / "volume"
    (volume / "alice" / "docs").mkdir(parents=True)
    (volume / "alice" / "docs" / "letter").write_text("dear")
    return volume


def test_what_is_inside_is_read(volume: Path) -> None:
    (volume / "short").symlink_to("alice/docs")
    with top_of(volume) as top:
        assert beneath.read(top, "alice/docs/letter") == b"dear"
        assert beneath.read(top, "short/letter", links=True) == b"dear"
        with pytest.raises(ImmudError, match="link"):
            beneath.read(top, "short/letter")
        with pytest.raises(FileNotFoundError):
            beneath.read(top, "alice/nothing")
        with pytest.raises(ImmudError, match="longer than 3 bytes"):
            beneath.read(top, "alice/docs/letter", limit=3)


@pytest.mark.parametrize("links", [False, True])
@pytest.mark.parametrize("path", ["../secret", "secret", "/proc/self/root"])
def test_no_link_leads_out(volume: Path, path: str, links: bool) -> None:
    (volume / "out").symlink_to(path if path.startswith("/") else f"../{path}")
    (volume / "up").symlink_to("..")
    (volume / "self").symlink_to("/proc/self/cwd")
    with top_of(volume) as top:
        for name in ("out", "up/secret", "self/secret"):
            with pytest.raises(ImmudError, match="not followed"):
                beneath.open_beneath(top, name, links=links)
            with pytest.raises(ImmudError, match="link"):
                os.close(beneath.make_directory(top, f"{name}/made"))
    assert sorted(os.listdir(volume.parent)) == ["secret", "volume"]


@pytest.mark.parametrize(
    "path", ["", "/", "/etc/passwd", "..", "a/..", "a/../b", "./a", "a//b", "a/", ".", "a\0b"]
)
def test_only_plain_relative_paths(volume: Path, path: str) -> None:
    with top_of(volume) as top:
        for call in (beneath.open_beneath, beneath.read, beneath.make_directory):
            with pytest.raises(ImmudError, match="not a path inside a tomb"):
                call(top, path)  # type: ignore[operator] # all take these two


def test_a_pipe_or_device_does_not_stop_anybody(volume: Path) -> None:
    os.mkfifo(volume / "pipe")
    os.mknod(volume / "null", 0o600 | 0o020000, os.makedev(1, 3))
    with top_of(volume) as top:
        for name in ("pipe", "null", "alice"):
            with pytest.raises(ImmudError, match="not a regular file"):
                beneath.read(top, name)


def test_directories_are_made_as_their_parent_is(volume: Path) -> None:
    os.chown(volume / "alice", 1000, 1001)
    os.chmod(volume / "alice", 0o750)
    with top_of(volume) as top:
        os.close(beneath.make_directory(top, "alice/a/b", 0o700))
        os.close(beneath.make_directory(top, "alice/a/c", owner=(7, 8)))
        os.close(beneath.make_directory(top, "alice/a/b", 0o777, owner=(7, 8)))
        with pytest.raises(ImmudError, match="not a directory"):
            beneath.make_directory(top, "alice/docs/letter/x")
    for name, owner, mode in (
        ("alice", (1000, 1001), 0o750),
        ("alice/a", (1000, 1001), 0o700),
        ("alice/a/b", (1000, 1001), 0o700),
        ("alice/a/c", (7, 8), 0o755),
    ):
        found = (volume / name).stat()
        assert (found.st_uid, found.st_gid) == owner
        assert found.st_mode & 0o7777 == mode


@in_namespace
def test_no_mount_leads_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    kernel.mount("tmpfs", str(tmp_path / "in"), "tmpfs", 0)
    with top_of(tmp_path) as top, pytest.raises(ImmudError, match="not followed"):
        beneath.open_beneath(top, "in", os.O_PATH)


def test_a_race_is_lost_by_who_runs_it(volume: Path) -> None:
    """A directory and a link out of the volume change places all the time."""
    (volume / "a").mkdir()
    (volume / "b").symlink_to("..")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            kernel.renameat2(str(volume / "a"), str(volume / "b"), kernel.RENAME_EXCHANGE)

    swapper = threading.Thread(target=swap)
    swapper.start()
    made = refused = 0
    deadline = time.monotonic() + 60
    try:
        with top_of(volume) as top:
            # Long enough for the other side to have had its turns, however busy the machine is.
            while min(made, refused) < 30 and time.monotonic() < deadline:
                try:
                    os.close(beneath.make_directory(top, f"a/{made}"))
                    made += 1
                except ImmudError:
                    refused += 1
    finally:
        over.set()
        swapper.join()
    assert sorted(os.listdir(volume.parent)) == ["secret", "volume"]
    assert min(made, refused) >= 30
