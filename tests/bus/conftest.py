"""Fixtures of the bus tier, and a search for what a test leaves open."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from immud import log
from immud.bus.link import Link
from tests.bus.memory import MemoryService
from tests.bus.private import PrivateBus


def descriptors() -> set[str]:
    """The open descriptors of this process, with what they are."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{fd} -> {os.readlink(f'/proc/self/fd/{fd}')}")
        except FileNotFoundError:
            continue  # the listing's own
    return found


@pytest_asyncio.fixture(autouse=True)
async def _nothing_open() -> AsyncIterator[None]:
    """No task and no descriptor is left when a test and its fixtures are done."""
    before, tasks = descriptors(), asyncio.all_tasks()
    yield
    for _ in range(50):
        left = {str(task) for task in asyncio.all_tasks() - tasks - {asyncio.current_task()}}
        left |= descriptors() - before
        if not left:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"left open: {sorted(left)}")


@pytest.fixture(autouse=True)
def _log_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = log.Sink()
    sink.target = log.Target.CONSOLE
    monkeypatch.setattr(log, "sink", sink)


@pytest_asyncio.fixture
async def bus(_nothing_open: None) -> AsyncIterator[PrivateBus]:
    """A private bus, not started yet in tests that take `bus` alone."""
    assert os.geteuid() == 0, "the bus tier needs root, to be another user: run tests/run as root"
    private = PrivateBus()
    yield private
    await private.close()


@pytest_asyncio.fixture
async def service(_nothing_open: None) -> AsyncIterator[MemoryService]:
    service = MemoryService()
    yield service
    await service.running.close()


@pytest_asyncio.fixture
async def link(bus: PrivateBus, service: MemoryService) -> AsyncIterator[Link]:
    """immud on the bus, which is started."""
    await bus.start()
    link = Link(service, address=bus.address)
    task = asyncio.ensure_future(link.run())
    await owned(bus)
    yield link
    task.cancel()
    await asyncio.wait([task])


async def owned(bus: PrivateBus, name: str = "org.immud1") -> None:
    """Wait until somebody has the name."""
    async with asyncio.timeout(10):
        while True:
            text = await bus.busctl("status", name, status=None)
            if "PID=" in text:
                return
            await asyncio.sleep(0.05)
