"""Who may change something, with a process of its own for polkit and nobody for a caller."""

import asyncio
import time
from typing import Any

import pytest

from immud.bus import polkit
from immud.bus.link import Link
from immud.model import TombState
from tests.bus.memory import MemoryService
from tests.bus.private import DAEMON, NOBODY, PrivateBus

MANAGER = ("org.immud1", "/org/immud1", "org.immud1.Manager")
OPEN = ("call", "org.immud1", "/org/immud1/tomb/home", "org.immud1.Tomb", "Open", "a{sv}", "0")
RECONCILE = ("call", *MANAGER, "Reconcile", "a{sv}", "0")
SET_LEVEL = (
    "set-property", "org.immud1", "/org/freedesktop/LogControl1",
    "org.freedesktop.LogControl1", "LogLevel", "s", "debug",
)  # fmt: skip


async def test_everybody_reads(bus: PrivateBus, link: Link) -> None:
    text = await bus.busctl("get-property", *MANAGER, "State", uid=NOBODY)
    assert text == 's "running"\n'
    await bus.busctl("call", *MANAGER, "ListTombs", uid=NOBODY)
    assert "home" in await bus.busctl("tree", "org.immud1", uid=NOBODY)


async def test_without_polkit_only_root_changes(
    bus: PrivateBus, link: Link, service: MemoryService
) -> None:
    began = time.monotonic()
    for arguments in (OPEN, RECONCILE, SET_LEVEL):
        text = await bus.busctl(*arguments, uid=NOBODY, status=1)
        assert "Only root may do this while polkit does not answer" in text
    assert time.monotonic() - began < 5
    assert service.now_tombs["home"].passphrases == []
    await bus.busctl(*OPEN)
    assert service.now_tombs["home"].passphrases == [None]


async def test_yes_means_yes(bus: PrivateBus, link: Link, service: MemoryService) -> None:
    authority = await bus.peer("polkit_peer.py", "yes")
    service.now_tombs["home"].gate.clear()
    await bus.busctl(*OPEN, uid=NOBODY)
    assert service.running.running[1].view.started_by_uid == NOBODY
    assert authority.stdout is not None
    line = await authority.stdout.readline()
    assert line.decode().split(maxsplit=3)[:3] == [polkit.MANAGE_TOMBS, "1", "system-bus-name"]
    await bus.busctl(*SET_LEVEL, uid=NOBODY)
    line = await authority.stdout.readline()
    assert line.decode().split()[0] == polkit.MANAGE_SYSTEM


async def test_no_means_no(bus: PrivateBus, link: Link, service: MemoryService) -> None:
    await bus.peer("polkit_peer.py", "no")
    for arguments in (OPEN, RECONCILE, SET_LEVEL):
        text = await bus.busctl(*arguments, uid=NOBODY, status=1)
        assert "You are not authorised to do this (org.immud1.manage-" in text
    assert service.now_tombs["home"].view.state == TombState.PRESENT
    assert not service.running.running


async def test_a_challenge_needs_a_call_that_allows_it(bus: PrivateBus, link: Link) -> None:
    await bus.peer("polkit_peer.py", "challenge")
    text = await bus.busctl(
        "--allow-interactive-authorization=no", *RECONCILE, uid=NOBODY, status=1
    )
    assert "needs authentication" in text
    await bus.busctl("--allow-interactive-authorization=yes", *RECONCILE, uid=NOBODY)


async def test_a_polkit_that_hangs_is_not_waited_for_for_ever(
    bus: PrivateBus, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polkit, "PERSON_TIMEOUT", 0.5)
    await bus.peer("polkit_peer.py", "hang")
    text = await bus.busctl(*RECONCILE, uid=NOBODY, status=1)
    assert "polkit does not answer" in text
    # Root neither waits nor is asked about.
    await bus.busctl(*RECONCILE)


async def test_who_started_a_job_may_cancel_it(
    bus: PrivateBus, link: Link, service: MemoryService
) -> None:
    service.now_tombs["home"].gate.clear()
    authority = await bus.peer("polkit_peer.py", "yes")
    await bus.busctl(*OPEN, uid=NOBODY)
    authority.kill()
    await authority.wait()
    cancel = ("call", "org.immud1", "/org/immud1/job/1", "org.immud1.Job", "Cancel")
    text = await bus.busctl(*cancel, uid=DAEMON, status=1)
    assert "Only root" in text
    job: Any = service.running.running[1]
    await bus.busctl(*cancel, uid=NOBODY)
    assert (await asyncio.wait_for(job.wait(), 5)).result == "cancelled"
