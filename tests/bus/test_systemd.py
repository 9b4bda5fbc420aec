"""systemd's manager, played by a process of its own."""

import asyncio
from asyncio.subprocess import Process
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from immud.bus.adapter import Connection
from immud.errors import Unreachable
from immud.systemd import Systemd, UnitFailed
from tests.bus.private import PrivateBus, stranger


class Stage:
    def __init__(self, bus: PrivateBus, connection: Connection, peer: Process) -> None:
        self.bus, self.connection, self.peer = bus, connection, peer
        self.systemd = Systemd(lambda: connection)

    async def asked(self) -> str:
        assert self.peer.stdout is not None
        return (await self.peer.stdout.readline()).decode().rstrip()


@pytest_asyncio.fixture
async def stage(bus: PrivateBus) -> AsyncIterator[Stage]:
    await bus.start()
    connection = await Connection.open(bus.address)
    yield Stage(bus, connection, await bus.peer("systemd_peer.py"))
    connection.close()


async def test_start_waits_for_the_end_of_the_job(stage: Stage) -> None:
    await stage.systemd.start_unit("good.service", "fail")
    assert await stage.asked() == "good.service fail"
    await stage.systemd.stop_unit("good.service")
    assert await stage.asked() == "good.service replace"
    with pytest.raises(UnitFailed, match=r"StartUnit of bad\.service ended with 'failed'"):
        await stage.systemd.start_unit("bad.service")
    assert stage.connection.on_signal == []


async def test_a_job_that_ends_before_its_call_is_answered(stage: Stage) -> None:
    await asyncio.wait_for(stage.systemd.start_unit("quick.service"), 5)


async def test_many_at_once_do_not_mix(stage: Stage) -> None:
    results = await asyncio.gather(
        *(stage.systemd.start_unit(f"{name}.service") for name in ("good", "bad") * 10),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), UnitFailed] * 10


async def test_a_unit_that_takes_too_long_or_is_unknown(stage: Stage) -> None:
    with pytest.raises(UnitFailed, match="has not ended after 0 s"):
        await stage.systemd.start_unit("slow.service", timeout=0.2)
    with pytest.raises(UnitFailed, match="not loaded"):
        await stage.systemd.start_unit("unknown.service")
    await stage.systemd.stop_unit("unknown.service")


async def test_the_rest(stage: Stage) -> None:
    assert await stage.systemd.system_state() == "degraded"
    await stage.systemd.reload()
    assert await stage.asked() == "reload"


async def test_a_bus_that_goes_meanwhile(stage: Stage) -> None:
    starting = asyncio.ensure_future(stage.systemd.start_unit("slow.service"))
    assert await stage.asked() == "slow.service replace"
    await asyncio.sleep(0.1)
    await stage.bus.stop()
    with pytest.raises(Unreachable):
        await starting
    with pytest.raises(Unreachable):
        await Systemd(lambda: None).reload()


async def test_a_stranger_does_not_end_a_job(stage: Stage) -> None:
    starting = asyncio.ensure_future(stage.systemd.start_unit("slow.service", timeout=1.0))
    assert await stage.asked() == "slow.service replace"
    path, manager = "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"
    done = ("JobRemoved", "uoss", 1, f"{path}/job/1", "slow.service", "done")
    await stranger(stage.bus.address, path, manager, *done, to=stage.connection.unique_name)
    # And what reaches us by a match rule of somebody else's has to be that signal.
    await stage.connection.call_bus("AddMatch", "s", "type='signal'")
    await stranger(stage.bus.address, path, "a.b", *done)
    await stranger(stage.bus.address, "/x", manager, *done)
    with pytest.raises(UnitFailed, match="has not ended after 1 s"):
        await starting
