"""Before the system sleeps, with logind played by a process of its own."""

import asyncio
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from immud.bus.adapter import Connection
from immud.integration.suspend import Suspend
from immud.jobs import Jobs, RunningJob
from immud.model import TombConfig, TombState
from tests.bus.private import PrivateBus, stranger


class Tomb:
    """What `Suspend` asks of an owner; a closing takes as long as it is told."""

    def __init__(self, stage: "Stage", name: str, *, closes: bool, inside: str = "") -> None:
        mount = f"/var/{inside or name}/{name}" if inside else f"/var/{name}"
        suspend = "close" if closes else "keep"
        self.config = TombConfig(name, on_suspend=suspend, mount=mount)
        self.read_only = bool(inside)
        self.volume = SimpleNamespace(target=mount, config=self.config)
        self.nest = SimpleNamespace(volume=self.volume, inner=lambda: self.inside)
        self.inside: list[Any] = []
        self.life = SimpleNamespace(state=TombState.OPEN)
        self.takes = 0.0
        self._stage = stage

    def close(self, uid: int, options: dict[str, Any]) -> RunningJob:
        assert options["force"]
        assert 0 < options["patience"] < 1

        async def work(_: RunningJob) -> None:
            await asyncio.sleep(self.takes)
            for nest in self.inside:
                self._stage.become(nest.volume.config.name, TombState.PRESENT)
            self._stage.become(self.config.name, TombState.PRESENT)

        return self._stage.jobs.start("close", "/", uid, work)

    def open(self, uid: int, options: dict[str, Any], passphrase: bytes | None) -> None:
        assert options == {"read-only": self.read_only}
        self._stage.become(self.config.name, TombState.OPEN)


class Stage:
    def __init__(self, bus: PrivateBus) -> None:
        self.bus = bus
        self.connection: Connection | None = None
        self.peer: Process | None = None
        self.jobs = Jobs(lambda: None)
        self.tombs: dict[str, Any] = {}
        self.said: list[str] = []
        self.suspend = Suspend(lambda: self.connection, lambda: self.tombs, lambda: None)

    def tomb(self, name: str, **options: Any) -> Tomb:
        tomb = self.tombs[name] = Tomb(self, name, **options)
        return tomb

    def become(self, name: str, state: TombState) -> None:
        self.tombs[name].life.state = state
        self.said.append(f"{name} {state}")
        self.suspend.look()

    async def connect(self) -> None:
        self.connection = await Connection.open(self.bus.address)
        self.suspend.look()

    async def logind(self) -> None:
        self.peer = await self.bus.peer("logind_peer.py", stdin=True)

    async def heard(self) -> str:
        assert self.peer
        assert self.peer.stdout
        async with asyncio.timeout(10):
            return (await self.peer.stdout.readline()).decode().rstrip()

    def tell(self, word: str) -> None:
        assert self.peer
        assert self.peer.stdin
        self.peer.stdin.write(f"{word}\n".encode())

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)


LOCKED = "locked sleep immud delay"


@pytest_asyncio.fixture
async def stage(bus: PrivateBus) -> AsyncIterator[Stage]:
    await bus.start()
    stage = Stage(bus)
    yield stage
    for task in stage.suspend.tasks:
        task.cancel()
    await stage.jobs.close()
    await asyncio.sleep(0)
    if stage.connection:
        stage.connection.close()


async def test_closed_before_and_opened_after(stage: Stage) -> None:
    await stage.logind()
    home, other = stage.tomb("home", closes=True), stage.tomb("other", closes=False)
    home.inside = [stage.tomb("alice", closes=False, inside="home").nest]
    await stage.connect()
    assert await stage.heard() == LOCKED
    stage.tell("sleep")
    assert await stage.heard() == "asleep"
    assert stage.said == ["alice present", "home present"], "closed before the lock was let go"
    stage.tell("wake")
    assert await stage.heard() == "awake"
    # Wide awake, it takes the next lock: there may be a second night.
    assert await stage.heard() == LOCKED
    assert sorted(stage.said[2:]) == ["alice open", "home open"]
    assert other.life.state is TombState.OPEN
    stage.tell("sleep")
    assert await stage.heard() == "asleep"
    assert home.life.state is TombState.PRESENT


async def test_a_drive_that_comes_back_later(stage: Stage) -> None:
    await stage.logind()
    stage.tomb("home", closes=True)
    await stage.connect()
    assert await stage.heard() == LOCKED
    stage.tell("sleep")
    assert await stage.heard() == "asleep"
    stage.become("home", TombState.ABSENT)
    stage.tell("wake")
    assert await stage.heard() == "awake"
    stage.become("home", TombState.PRESENT)
    await stage.until(lambda: "home open" in stage.said)
    assert await stage.heard() == LOCKED


@pytest.mark.parametrize("in_time", [True, False])
async def test_a_second_sleep_does_not_forget_the_first(stage: Stage, in_time: bool) -> None:
    await stage.logind()
    for name in ("home", "other"):
        stage.tomb(name, closes=True)
    await stage.connect()
    assert await stage.heard() == LOCKED
    stage.tell("sleep")
    assert await stage.heard() == "asleep"
    stage.become("home", TombState.ABSENT)
    stage.tell("wake")
    assert await stage.heard() == "awake"
    assert await stage.heard() == LOCKED
    if not in_time:
        # Nothing happened for hours.
        stage.suspend._until = asyncio.get_running_loop().time() - 1
    stage.tell("sleep")
    assert await stage.heard() == "asleep"
    stage.tell("wake")
    assert await stage.heard() == "awake"
    stage.become("home", TombState.PRESENT)
    assert await stage.heard() == LOCKED
    assert stage.said.count("other open") == 2
    if in_time:
        await stage.until(lambda: "home open" in stage.said)
    else:
        await asyncio.sleep(0.2)
        assert "home open" not in stage.said


async def test_sleep_is_not_put_off_for_ever(stage: Stage) -> None:
    await stage.logind()
    stage.tomb("home", closes=True).takes = 60
    await stage.connect()
    assert await stage.heard() == LOCKED
    began = asyncio.get_running_loop().time()
    stage.tell("sleep")
    assert await stage.heard() == "asleep"
    assert 2 < asyncio.get_running_loop().time() - began < 3, "logind's own limit is 3 s here"


async def test_nothing_is_listened_to_without_such_a_tomb(stage: Stage) -> None:
    await stage.logind()
    stage.tomb("other", closes=False)
    home = stage.tomb("home", closes=True)
    home.life.state = TombState.PRESENT
    await stage.connect()
    assert stage.suspend.tasks == ()
    stage.become("home", TombState.OPEN)
    assert await stage.heard() == LOCKED
    stage.become("home", TombState.PRESENT)
    await stage.until(lambda: stage.suspend.tasks == ())
    stage.tell("sleep")
    assert await stage.heard() == "asleep", "the lock is gone with the tomb"
    assert stage.connection
    assert stage.connection.on_signal == []


async def test_without_logind_it_says_so_until_there_is_one(stage: Stage) -> None:
    stage.tomb("home", closes=True)
    await stage.connect()
    await stage.until(lambda: stage.suspend.problems != ())
    (problem,) = stage.suspend.problems
    assert problem.code == "suspend-unguarded"
    await stage.logind()
    assert await stage.heard() == LOCKED
    await stage.until(lambda: stage.suspend.problems == ())
    # Another logind is not held back by the lock of the one before.
    assert stage.peer
    stage.peer.kill()
    await stage.until(lambda: stage.suspend.problems != ())
    await stage.logind()
    assert await stage.heard() == LOCKED


async def test_one_that_is_unlocked_and_waits_is_closed_too(stage: Stage) -> None:
    await stage.logind()
    home = stage.tomb("home", closes=True)
    home.life.state, home.read_only = TombState.CHECKING, True
    await stage.connect()
    assert await stage.heard() == LOCKED
    stage.tell("sleep")
    assert await stage.heard() == "asleep"
    assert stage.said == ["home present"]
    stage.tell("wake")
    assert await stage.heard() == "awake"
    await stage.until(lambda: "home open" in stage.said)


SLEEPS = ("/org/freedesktop/login1", "org.freedesktop.login1.Manager", "PrepareForSleep")
CHANGED = ("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged")


async def undisturbed(stage: Stage) -> None:
    """Nothing was closed, and the lock is still the same one."""
    assert stage.connection
    await stage.connection.call_bus("GetId")
    await asyncio.sleep(0.2)
    assert stage.said == []
    assert stage.peer
    assert stage.peer.stdout
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stage.peer.stdout.readline(), 0.2)
    assert stage.suspend._lock >= 0


async def test_a_stranger_does_not_put_the_system_to_sleep(stage: Stage) -> None:
    await stage.logind()
    stage.tomb("home", closes=True)
    await stage.connect()
    assert await stage.heard() == LOCKED
    assert stage.connection
    us, name = stage.connection.unique_name, "org.freedesktop.login1"
    await stranger(stage.bus.address, *SLEEPS, "b", True, to=us)
    await stranger(stage.bus.address, *CHANGED, "sss", name, ":1.1", "", to=us)
    await undisturbed(stage)


async def test_what_is_no_signal_of_logind_is_left_alone(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    """Even where it reaches us, by somebody else's match rule for the same connection."""
    await stage.logind()
    stage.tomb("home", closes=True)
    await stage.connect()
    assert await stage.heard() == LOCKED
    assert stage.connection
    await stage.connection.call_bus("AddMatch", "s", "type='signal'")
    path, interface, member = SLEEPS
    await stranger(stage.bus.address, "/x", interface, member, "b", True)
    await stranger(stage.bus.address, path, "a.b", member, "b", True)
    await stranger(stage.bus.address, path, interface, member, "")
    await stranger(
        stage.bus.address, "/x", "a.b", "NameOwnerChanged", "s", "org.freedesktop.login1"
    )
    await stranger(stage.bus.address, "/x", "a.b", "NameOwnerChanged", "")
    await undisturbed(stage)
    assert "not handled" not in capfd.readouterr().err
