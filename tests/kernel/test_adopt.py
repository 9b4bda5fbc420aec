"""Adopting and releasing on real file systems, each in a namespace of its own."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from immud.adopt import adopt, release
from tests.support import filesystems
from tests.support.filesystems import PLAIN, ROWS
from tests.support.namespaces import namespaced

Test = Callable[[], None]
System = Callable[[Test], None]


@pytest.fixture(params=filesystems.FILESYSTEMS)
def system(request: pytest.FixtureRequest, tmp_path: Path) -> System:
    return _system(request.param, tmp_path)


@pytest.fixture
def ext4(tmp_path: Path) -> System:
    return _system("ext4", tmp_path)


def _system(fstype: str, tmp_path: Path) -> System:
    """Run a test with a fresh stock system as its root directory."""
    root = tmp_path / "root"
    root.mkdir()

    def run(test: Test) -> None:
        def inside() -> None:
            filesystems.make_image(str(tmp_path / "image"), fstype, str(root))
            filesystems.boot(str(tmp_path / "image"), fstype, str(root))
            test()

        namespaced(inside)

    return run


def on(name: str) -> Callable[[Test], Callable[[pytest.FixtureRequest], None]]:
    """Let a test's body run in the system that the fixture `name` makes."""

    def decorate(test: Test) -> Callable[[pytest.FixtureRequest], None]:
        def wrapped(request: pytest.FixtureRequest) -> None:
            request.getfixturevalue(name)(test)

        functools.update_wrapper(wrapped, test)
        del wrapped.__wrapped__  # pytest takes the arguments from it otherwise
        return pytest.mark.usefixtures(name)(wrapped)

    return decorate


def layout() -> dict[str, str]:
    return {row.path: os.readlink(row.path) for row in ROWS if os.path.islink(row.path)}


ALL_LINKS = {row.path: row.target for row in ROWS if row.path != "/tmp"}


@on("system")
def test_a_stock_system_goes_and_comes_back() -> None:
    before = {row.path: filesystems.snapshot(row.path) for row in PLAIN}
    outcome = adopt(ROWS, ROWS)
    assert layout() == ALL_LINKS
    assert {row.path: filesystems.snapshot(row.directory) for row in PLAIN} == before
    assert os.listdir("/run/media") == []
    assert [note.split()[0] for note in outcome.notes] == ["/tmp"]
    assert adopt(ROWS, ROWS).steps == ()
    release(ROWS, ROWS)
    assert layout() == {}
    assert {row.path: filesystems.snapshot(row.path) for row in PLAIN} == before
    assert sorted(os.listdir("/var")) == ["lib", "log"]
    assert not [name for name in os.listdir("/") if name.startswith(".")]
    assert release(ROWS, ROWS).steps == ()


@on("system")
def test_an_immutable_system_goes_and_comes_back() -> None:
    filesystems.immutable()
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir("/new")
    before = {row.path: filesystems.snapshot(row.path) for row in PLAIN}
    adopt(ROWS, ROWS)
    assert layout() == ALL_LINKS
    assert {row.path: filesystems.snapshot(row.path + "/") for row in PLAIN} == before
    Path("/home/ada/new").touch()
    release(ROWS, ROWS)
    assert layout() == {}
    Path("/home/ada/new").unlink()
    Path("/usr/local/bin/new").touch()
    Path("/usr/local/bin/new").unlink()
    assert {row.path: filesystems.snapshot(row.path) for row in PLAIN} == before
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir("/new")
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir("/usr/new")
