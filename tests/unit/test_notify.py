"""sd_notify(3): the datagrams a service manager receives."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from immud.early import notify


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_receives_assignments(
    abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name if abstract else name)
        manager.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if abstract else name)
        assert notify.ready("Immutable; no tomb is open.")
        assert manager.recv(4096).decode().split("\n") == [
            "READY=1",
            "STATUS=Immutable; no tomb is open.",
            f"MAINPID={os.getpid()}",
        ]
        assert notify.status("tomb home waits for a\nSTOPPING=1 (pid 7), \udcff (pid 8)")
        assert manager.recv(4096) == (
            b"STATUS=tomb home waits for a STOPPING=1 (pid 7), \\udcff (pid 8)"
        )
        assert notify.more_time(30)
        assert manager.recv(4096) == b"EXTEND_TIMEOUT_USEC=30000000"


@pytest.mark.parametrize("address", [None, "", "vsock:2:1", "/nowhere/at/all"])
def test_no_manager_is_no_error(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify.watchdog()


def test_the_watchdog_is_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert notify.watchdog_interval() == 0.0
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert notify.watchdog_interval() == 15.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert notify.watchdog_interval() == 15.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert notify.watchdog_interval() == 0.0


def test_it_imports_nothing_heavy() -> None:
    code = "import immud.early.notify, sys; print('socket' in sys.modules, 'enum' in sys.modules)"
    root = str(Path(notify.__file__).parents[2])
    output = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {root!r}); {code}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert output == "False False\n"
