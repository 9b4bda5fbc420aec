"""The lock that logins wait for: held across exec, let go of by whoever holds it, or by its end."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from immud.early import logins

HOLD = "from immud.early import logins; import os, sys; logins.PATH = sys.argv[1]; logins.hold()\n"


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(logins, "PATH", str(tmp_path / "logins"))
    monkeypatch.setenv(logins.VARIABLE, "")
    monkeypatch.delenv(logins.VARIABLE)
    return tmp_path / "logins"


def is_free(lock: Path) -> bool:
    """What flock(1) would find."""
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_logins_wait_until_it_is_released(lock: Path) -> None:
    assert not logins.are_held()
    logins.hold()
    assert logins.are_held()
    assert not is_free(lock)
    fd = logins.held()
    assert fd is not None
    assert not os.get_inheritable(fd), "nobody else is to have it"
    assert logins.VARIABLE not in os.environ
    # a child that was started meanwhile, and lives on
    with subprocess.Popen(["sleep", "100"], pass_fds=[fd]) as child:
        assert not is_free(lock)
        logins.release(fd)
        assert is_free(lock)
        child.kill()


def test_without_the_lock_there_is_nothing_to_release(lock: Path) -> None:
    assert logins.held() is None
    logins.release(None)
    assert not lock.exists()


def test_the_process_that_comes_after_has_it_and_takes_it_along_when_it_dies(lock: Path) -> None:
    after = "os.execv(sys.executable, [sys.executable, '-c', 'print(0, flush=True); input()'])"
    command = (sys.executable, "-c", HOLD + after, str(lock))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"0\n"
        assert not is_free(lock)
        process.kill()
        process.wait()
        assert is_free(lock)
