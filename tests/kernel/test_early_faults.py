"""Phase 1 with every call failing in turn, and cut off before every call: it boots, or goes on.

The calls are counted on a real file system first; then the n-th of them raises an
error it can give, or takes the process with it. Whatever happens, READY=1 is sent,
/etc, /var and people's homes can be written to, and the next boot is whole.
"""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from immud.early import elsewhere, facts, kernel, main, notify, plan
from immud.early.plan import BootPlan
from tests.support.namespaces import ChildKilled, enter_root, forked, namespaced
from tests.support.phase1 import SILVERBLUE, refuses
from tests.support.stock import mount_image, stock_image

LOADED_LATE = elsewhere.LOADED
# The system calls of phase 1 by the functions it makes them with.
CALLS = {
    kernel: ("open_tree", "move_mount", "mount_setattr", "mount", "renameat2"),
    os: (
        *("open", "read", "close", "listdir", "scandir", "stat", "lstat", "readlink"),
        *("mkdir", "makedirs", "chmod", "symlink", "rename", "rmdir", "unlink", "statvfs"),
    ),
}


class Booted(BaseException):
    """Phase 1 came to its end and would be phase 2 now. Not an Exception: nothing catches it."""


def _root(image: Path, where: Path) -> None:
    mount_image(image, where)
    kernel.mount("tmpfs", str(where / "run"), "tmpfs", 0, "mode=755")
    enter_root(str(where))
    # /home is a link already, as after adoption, and its directory is to be made
    if not os.path.islink("/home"):
        os.rename("/home", "/home.old")
        os.symlink("var/home", "/home")
    Path(plan.PATH).write_bytes(plan.encode(BootPlan(rows=SILVERBLUE)))


def _boot(fault: Callable[[int, str], None]) -> tuple[int, bool]:
    """Run phase 1 with `fault(number, name)` before each call; the number of calls, and READY."""
    count, said = 0, []

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            fault(count, name)
            return real(*arguments, **options)

        return call

    def ready(_status: str) -> bool:
        said.append(True)
        return True

    def become(*_arguments: object) -> NoReturn:
        raise Booted

    saved = [(module, name, getattr(module, name)) for module in CALLS for name in CALLS[module]]
    saved += [(notify, "ready", notify.ready), (os, "execv", os.execv)]
    try:
        for module, name, real in saved[:-2]:
            setattr(module, name, wrapped(name, real))
        notify.ready, os.execv = ready, become  # type: ignore[assignment]
        main.boot()
    except Booted:
        pass
    finally:
        for module, name, real in saved:
            setattr(module, name, real)
    return count, bool(said)


def _usable() -> list[str]:
    """What a person could not do in this system."""
    lacking = [path for path in ("/etc/x", "/var/x", "/root/x", "/tmp/x") if refuses(path)]
    if Path("/home.old/alice/letter").read_text() != "dear alice\n":
        lacking.append("the letter")
    return lacking


def _whole(image: Path, where: Path) -> None:
    """The next boot of the same disk, with nothing in the way."""
    _root(image, where)
    count, ready = _boot(lambda _number, _name: None)
    assert count
    assert ready
    made = facts.read()
    assert made is not None
    assert made.layout == "done", made.problems
    assert refuses("/usr/x")
    assert refuses("/x")
    assert _usable() == []


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stock_image(tmp_path_factory.mktemp("stock"), size="16M")


def _copy(image: Path, directory: Path, name: str) -> tuple[Path, Path]:
    disk = directory / f"{name}.ext4"
    disk.write_bytes(image.read_bytes())
    return disk, directory / "root"


def _count(image: Path, directory: Path) -> int:
    disk, where = _copy(image, directory, "count")

    def work() -> int:
        _root(disk, where)
        return _boot(lambda _number, _name: None)[0]

    return namespaced(work)


# What the calls can say, each its own kind of trouble: no space or a dying disk, a file
# system that has turned read-only, a policy, and somebody who was quicker.
ERRORS = (errno.EIO, errno.EROFS, errno.EPERM, errno.EBUSY)


@pytest.mark.parametrize("number", ERRORS, ids=[errno.errorcode[n] for n in ERRORS])
def test_every_call_fails_in_turn(image: Path, tmp_path: Path, number: int) -> None:
    # every fourth call with each errno: all of them with one errno or another
    every_call_fails(image, tmp_path, number, 1 + ERRORS.index(number), len(ERRORS))


def every_call_fails(image: Path, directory: Path, number: int, first: int, every: int) -> None:
    """Let each `every`-th call of phase 1, from the `first` on, fail with errno `number`."""
    total = _count(image, directory)
    assert total > 50
    for target in range(first, total + 1, every):
        disk, where = _copy(image, directory, "fault")
        failed: list[str] = []

        def fault(count: int, name: str, target: int = target, failed: list[str] = failed) -> None:
            if count == target:
                failed.append(name)
                raise OSError(number, os.strerror(number), name)

        def work(disk: Path = disk, where: Path = where, fault: Any = fault) -> list[str]:
            _root(disk, where)
            _, ready = _boot(fault)
            return ([] if ready else ["READY=1"]) + _usable()

        lacking = namespaced(work)
        assert lacking == [], (
            f"call {target}, {failed}, fails with {errno.errorcode[number]}: {lacking}"
        )
        namespaced(lambda disk=disk, where=where: _whole(disk, where))  # type: ignore[misc]


def test_cut_off_before_every_call_the_next_start_goes_on(image: Path, tmp_path: Path) -> None:
    cut_off_before(image, tmp_path, 3)


def cut_off_before(image: Path, directory: Path, every: int) -> None:
    """Kill phase 1 before each `every`-th of its calls, and start it again."""
    for target in range(1, _count(image, directory) + 1, every):
        disk, where = _copy(image, directory, "kill")

        def kill(count: int, _name: str, target: int = target) -> None:
            if count == target:
                os.kill(os.getpid(), signal.SIGKILL)

        def work(disk: Path = disk, where: Path = where, kill: Any = kill) -> list[str]:
            _root(disk, where)
            with pytest.raises(ChildKilled):
                forked(lambda: _boot(kill))
            # systemd starts it again, in the same boot
            _, ready = _boot(lambda _number, _name: None)
            made = facts.read()
            assert made is not None
            assert (ready, made.layout) == (True, "done"), made.problems
            assert refuses("/usr/x")
            assert refuses("/x")
            return _usable()

        assert namespaced(work) == [], f"killed before call {target}"
        namespaced(lambda disk=disk, where=where: _whole(disk, where))  # type: ignore[misc]
