"""Life on the bus: before it is there, while it restarts, when somebody has our name."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from immud.bus.adapter import Connection
from immud.bus.link import Link
from tests.bus.conftest import owned
from tests.bus.memory import MemoryService
from tests.bus.private import PrivateBus

MANAGER = ("org.immud1", "/org/immud1", "org.immud1.Manager")


@asynccontextmanager
async def running(link: Link) -> AsyncIterator[None]:
    task = asyncio.ensure_future(link.run())
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_bus_that_comes_later(bus: PrivateBus, service: MemoryService) -> None:
    link = Link(service, address=bus.address)
    async with running(link):
        await asyncio.sleep(0.1)
        assert link.connection is None
        await bus.start()
        await until(lambda: link.connection is not None)
        await owned(bus)


async def test_even_its_directory_comes_later(bus: PrivateBus, service: MemoryService) -> None:
    directory = f"{bus.directory}/run/dbus"
    link = Link(service, address=f"unix:path={directory}/socket")
    async with running(link):
        await asyncio.sleep(0.05)
        os.makedirs(directory)
        await bus.start()
        os.rename(bus.socket, f"{directory}/socket")
        await until(lambda: link.connection is not None)
        os.rename(f"{directory}/socket", bus.socket)


async def test_a_call_made_too_early_is_answered(bus: PrivateBus, service: MemoryService) -> None:
    """The bus activates the name, which takes its time; the call waits for it."""
    bus.activatable("org.immud1", "/bin/sleep 2")
    await bus.start()
    call = asyncio.ensure_future(bus.busctl("get-property", *MANAGER, "State"))
    await asyncio.sleep(0.3)
    assert not call.done()
    async with running(Link(service, address=bus.address)):
        assert await call == 's "running"\n'
    # The bus started the command, and nobody but the bus could wait for it.
    await asyncio.sleep(2)


async def test_a_restart_of_the_bus_loses_nothing(
    bus: PrivateBus, link: Link, service: MemoryService
) -> None:
    home = service.now_tombs["home"]
    home.gate.clear()
    await bus.busctl(
        "call", "org.immud1", "/org/immud1/tomb/home", "org.immud1.Tomb", "Open", "a{sv}", "0"
    )
    for _ in range(3):
        await bus.stop()
        await until(lambda: link.connection is None)
        await bus.start()
        await owned(bus)
        assert await bus.json("get-property", *MANAGER, "NJobs") == 1
    waiting = asyncio.ensure_future(
        bus.json("call", *MANAGER, "WaitForJob", "ot", "/org/immud1/job/1", "0")
    )
    await asyncio.sleep(0.1)
    home.gate.set()
    assert await waiting == ["done"]
    assert await bus.json("get-property", *MANAGER, "HomeTomb") == "/org/immud1/tomb/home"


async def test_what_happens_meanwhile_is_there_afterwards(
    bus: PrivateBus, link: Link, service: MemoryService
) -> None:
    await bus.stop()
    await until(lambda: link.connection is None)
    usr = service.now_mounts.pop("/usr")
    service.changed()
    job = service.reconcile(0, {})
    await job.wait()
    await bus.start()
    await owned(bus)
    assert "/org/immud1/mount/usr" not in await bus.busctl("tree", "--list", "org.immud1")
    service.now_mounts["/usr"] = usr
    service.changed()
    assert "/org/immud1/mount/usr" in await bus.busctl("tree", "--list", "org.immud1")


async def test_a_name_somebody_else_has(bus: PrivateBus, service: MemoryService) -> None:
    await bus.start()
    thief = await Connection.open(bus.address)
    await thief.call_bus("RequestName", "su", "org.immud1", 0)
    changes: list[str] = []
    link = Link(
        service,
        address=bus.address,
        changed=lambda: changes.append(link.problem.code if link.problem else "none"),
    )
    async with running(link):
        await until(lambda: link.problem is not None)
        assert link.problem is not None
        assert "Another process owns the bus name org.immud1" in link.problem.text
        await asyncio.sleep(0.2)
        assert changes == ["bus-name"]
        thief.close()
        await until(lambda: link.problem is None)
        assert changes == ["bus-name", "none"]
        await owned(bus)


async def test_a_bus_that_hangs_up_is_not_asked_in_a_circle(
    bus: PrivateBus, service: MemoryService
) -> None:
    """Something listens that takes everybody in and is gone at once."""
    accepted = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await reader.read(1)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_unix_server(hang_up, bus.socket)
    async with running(Link(service, address=bus.address)):
        await asyncio.sleep(1)
    server.close()
    await server.wait_closed()
    Path(bus.socket).unlink(missing_ok=True)  # Python 3.13 has done so
    assert 2 <= accepted <= 8


async def test_idle_means_idle(bus: PrivateBus, link: Link) -> None:
    """No timer and nothing ready: the loop sleeps until somebody wants something."""
    await asyncio.sleep(0.2)
    loop = asyncio.get_running_loop()
    timers = [handle for handle in loop._scheduled if not handle._cancelled]  # type: ignore[attr-defined]
    assert timers == []
