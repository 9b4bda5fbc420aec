"""While tombs are closed at the end, the service manager is told to wait, and not for ever."""

import asyncio
import socket
from pathlib import Path

import pytest

from immud import ending


async def test_it_is_told_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ending.SILENCE > 2 * ending.AT_WORK, "one that is late is not killed"
    monkeypatch.setattr(ending, "AT_WORK", 0.01)
    monkeypatch.setattr(ending, "TIMES", 3)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{tmp_path}/notify")
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")
        async with asyncio.timeout(20):
            await ending.take_time()
        for _ in range(3):
            assert manager.recv(4096) == b"EXTEND_TIMEOUT_USEC=30000000"
        with pytest.raises(BlockingIOError):
            manager.recv(4096)
