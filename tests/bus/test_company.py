"""Targets and hooks of open tombs, with systemd's manager played by a process of its own."""

import asyncio
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from immud.bus.adapter import Connection
from immud.early import mountinfo
from immud.integration.hooks import About, Hooks
from immud.integration.sequence import Company, HookFailed
from immud.model import TombState
from immud.systemd import Systemd
from tests.bus.private import PrivateBus

ABOUT = About("my-tomb", "/", "5f0e")
TARGET = r"immud-tomb@my\x2dtomb.target replace"


async def nothing() -> None:
    """A tomb without binds."""


class Stage:
    """A company whose systemd is on a private bus, hooks of its own, and what systemd is asked."""

    def __init__(self, bus: PrivateBus, peer: Process, directory: str) -> None:
        self.bus, self.peer, self.directory = bus, peer, directory
        self.connection: Connection | None = None
        systemd = Systemd(lambda: self.connection)
        self.company = Company(
            systemd,
            lambda: None,
            hooks=Hooks(systemd, lambda: None, f"{directory}/hooks.d"),
            told=f"{directory}/told",
        )

    async def connect(self) -> None:
        self.connection = await Connection.open(self.bus.address)
        self.company.connected()

    def hook(self, event: str, name: str) -> None:
        path = Path(self.directory, "hooks.d", event, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)

    async def asked(self) -> str:
        assert self.peer.stdout is not None
        async with asyncio.timeout(5):
            return (await self.peer.stdout.readline()).decode().rstrip()

    async def hook_asked(self) -> str:
        return (await self.asked()).split()[0]

    async def nothing_asked(self) -> None:
        assert self.peer.stdout is not None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(self.peer.stdout.readline(), 0.1)


@pytest_asyncio.fixture
async def stage(bus: PrivateBus) -> AsyncIterator[Stage]:
    await bus.start()
    # /tmp is everybody's, and no hook is taken from there.
    with tempfile.TemporaryDirectory(dir="/run", prefix="immud-test-") as directory:
        stage = Stage(bus, await bus.peer("systemd_peer.py"), directory)
        yield stage
        for task in stage.company.tasks:
            task.cancel()
        if stage.connection:
            stage.connection.close()


async def test_opened_and_closed_in_turn(stage: Stage) -> None:
    for event in ("opened", "closing", "closed"):
        stage.hook(event, "20-b")
        stage.hook(event, "10-a")
    stage.company.opened(ABOUT, nothing)
    await stage.connect()
    first = await stage.asked()
    assert first.startswith("immud-hook-my-tomb-opened-10-a.service fail ")
    assert f"'{stage.directory}/hooks.d/opened/10-a'" in first
    for assignment in ("IMMUD_EVENT=opened", "IMMUD_TOMB=my-tomb", "IMMUD_MOUNT_POINT=/"):
        assert assignment in first
    assert "IMMUD_UUID=5f0e" in first
    assert "opened-20" in await stage.hook_asked()
    assert await stage.asked() == TARGET
    closing = stage.company.closed(ABOUT, polite=True)
    assert await stage.asked() == TARGET
    assert ["closing-10" in await stage.hook_asked(), "closing-20" in await stage.hook_asked()]
    await closing
    stage.company.look({ABOUT.name: TombState.CLOSING})
    await stage.nothing_asked()
    stage.company.look({ABOUT.name: TombState.PRESENT})
    assert "closed-10" in await stage.hook_asked()
    assert "closed-20" in await stage.hook_asked()
    await asyncio.wait(stage.company.tasks)
    assert stage.company.problems == ()


async def test_the_home_s_target_is_there_as_well(stage: Stage) -> None:
    await stage.connect()
    stage.company.opened(About("x", "/var/home", ""), nothing)
    assert {await stage.asked(), await stage.asked()} == {
        "immud-tomb@x.target replace",
        "immud-tomb.target replace",
    }


async def test_a_closing_hook_that_fails_says_no(stage: Stage) -> None:
    stage.hook("closing", "1-bad")
    stage.hook("closing", "2-good")
    stage.hook("closed", "never")
    await stage.connect()
    closing = stage.company.closed(ABOUT, polite=True)
    with pytest.raises(
        HookFailed, match=r"immud close --force my-tomb\)\. The hook .*1-bad failed"
    ):
        await closing
    assert await stage.asked() == TARGET
    assert "bad" in await stage.hook_asked()
    assert "good" in await stage.hook_asked(), "one that fails does not keep others from their work"
    assert [(p.code, p.data["event"]) for p in stage.company.problems] == [
        ("hook-failed", "closing")
    ]
    stage.company.opened(ABOUT, nothing)
    stage.company.look({ABOUT.name: TombState.OPEN})
    assert await stage.asked() == TARGET
    await stage.nothing_asked()
    Path(stage.directory, "hooks.d/closing/1-bad").unlink()
    await stage.company.closed(ABOUT, polite=True)
    assert stage.company.problems == ()


async def test_a_lost_drive_waits_for_nobody(stage: Stage) -> None:
    stage.hook("opened", "slow")
    stage.hook("closing", "never")
    stage.hook("lost", "told")
    await stage.connect()
    stage.company.opened(ABOUT, nothing)
    assert "slow" in await stage.hook_asked()
    await asyncio.wait_for(stage.company.closed(ABOUT, polite=False), 5)
    assert await stage.asked() == TARGET
    stage.company.look({ABOUT.name: TombState.LOST})
    await stage.nothing_asked()
    stage.company.look({ABOUT.name: TombState.ABSENT})
    assert "lost-told" in await stage.hook_asked()


async def test_pulled_while_it_is_closed(stage: Stage) -> None:
    stage.hook("closed", "never")
    stage.hook("lost", "told")
    await stage.connect()
    await stage.company.closed(ABOUT, polite=True)
    assert await stage.asked() == TARGET
    stage.company.look({ABOUT.name: TombState.LOST})
    stage.company.look({})
    assert "lost-told" in await stage.hook_asked()


async def test_a_daemon_that_comes_back_tells_nobody_again(stage: Stage) -> None:
    stage.hook("opened", "once")
    await stage.connect()
    stage.company.opened(ABOUT, nothing)
    assert "once" in await stage.hook_asked()
    assert await stage.asked() == TARGET
    again = Stage(stage.bus, stage.peer, stage.directory)
    again.connection = stage.connection
    again.company.connected()
    again.company.opened(ABOUT, nothing)
    assert await stage.asked() == TARGET, "a target that is up already is no news to anybody"
    # Another mount is: somebody closed and opened it while there was no daemon.
    told = Path(stage.directory, "told", ABOUT.name)
    top = mountinfo.top(mountinfo.read(), "/")
    assert top
    assert told.read_text() == f"{top.id} {top.dev}"
    told.write_text("0 0:0")
    again.company.opened(ABOUT, nothing)
    assert "once" in await stage.hook_asked()
    for task in again.company.tasks:
        task.cancel()


async def test_closed_while_the_first_hooks_are_run(stage: Stage) -> None:
    stage.hook("opened", "first")
    stage.hook("closed", "last")
    await stage.connect()
    stage.company.opened(ABOUT, nothing)
    closing = stage.company.closed(ABOUT, polite=True)
    # The target goes down, and does not come up when the hook has ended.
    assert {await stage.hook_asked(), await stage.hook_asked()} == {
        "immud-hook-my-tomb-opened-first.service",
        TARGET.split(maxsplit=1)[0],
    }
    await closing
    stage.company.look({})
    assert "closed-last" in await stage.hook_asked()
    await stage.nothing_asked()


async def test_closed_before_anybody_could_be_told(stage: Stage) -> None:
    stage.hook("opened", "never")
    stage.hook("closed", "never")
    stage.company.opened(ABOUT, nothing)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await stage.company.closed(ABOUT, polite=True)
    stage.company.look({})
    await stage.connect()
    assert await stage.asked() == TARGET
    await stage.nothing_asked()


async def test_without_a_bus_only_a_closing_is_refused(stage: Stage) -> None:
    stage.company.opened(ABOUT, nothing)
    await stage.company.closed(ABOUT, polite=True)
    stage.hook("closing", "save")
    with pytest.raises(HookFailed, match="no system bus"):
        await stage.company.closed(ABOUT, polite=True)
