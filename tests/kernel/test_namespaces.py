"""The tests' own safety net: what happens in a namespace stays there."""

import os
import signal
import time

import pytest

from immud.early import kernel
from tests.support.namespaces import (
    ChildError,
    ChildKilled,
    assert_private,
    enter_root,
    forked,
    in_namespace,
    namespaced,
)


class Unpicklable(Exception):
    def __init__(self, one: int, *, two: int) -> None:
        super().__init__(f"{one} and {two}")


def test_the_result_comes_back() -> None:
    assert namespaced(lambda: ("x" * 200_000, os.getpid())) == ("x" * 200_000, 1)


def test_an_error_comes_back_with_the_child_s_traceback() -> None:
    def fail() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone") as caught:
        namespaced(fail)
    assert any("in fail" in note for note in caught.value.__notes__)


def test_an_error_that_cannot_travel_comes_back_as_text() -> None:
    def fail() -> None:
        raise Unpicklable(1, two=2)

    with pytest.raises(ChildError, match="1 and 2"):
        forked(fail)


def test_a_killed_child_is_told_from_one_that_failed() -> None:
    with pytest.raises(ChildKilled) as caught:
        forked(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert caught.value.signal == signal.SIGKILL


def test_a_child_that_hangs_is_ended() -> None:
    with pytest.raises(TimeoutError):
        namespaced(lambda: time.sleep(60), timeout=0.3)


def test_mounts_stay_inside(tmp_path: os.PathLike[str]) -> None:
    def mount() -> bool:
        kernel.mount("tmpfs", os.fspath(tmp_path), "tmpfs", 0)
        return os.path.ismount(tmp_path)

    assert namespaced(mount)
    assert not os.path.ismount(tmp_path)


def test_processes_end_with_it() -> None:
    def leave_one_behind() -> int:
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        return pid

    start = time.monotonic()
    namespaced(leave_one_behind)
    assert time.monotonic() - start < 10


@in_namespace
def test_a_new_root_hides_the_machine(tmp_path: os.PathLike[str]) -> None:
    root = os.fspath(tmp_path)
    kernel.mount("tmpfs", root, "tmpfs", 0)
    os.mkdir(f"{root}/proc")
    enter_root(root)
    assert os.listdir("/") == ["proc"]
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        assert [line.split()[4] for line in table] == ["/", "/proc"]


def test_the_machine_s_own_namespace_is_refused() -> None:
    with pytest.raises(AssertionError):
        assert_private(os.readlink("/proc/self/ns/mnt"))
