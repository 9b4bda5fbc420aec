"""Leases on the bus: what everybody sees, and what is for root and who has one."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from immud.bus import polkit
from immud.bus.link import Link
from immud.lease import record
from immud.lease import register as leases
from immud.lease.record import Record
from immud.lease.register import Leases
from tests.bus.memory import MemoryService
from tests.bus.private import DAEMON, NOBODY, PrivateBus

MANAGER = ("org.immud1", "/org/immud1", "org.immud1.Manager")
LEASE = ("org.immud1", "/org/immud1/lease/a1", "org.immud1.Lease")
GIVEN = Record(
    "a1",
    who=NOBODY,
    why="because",
    since=5,
    until=7,
    command=("apt", "install", "secret-thing"),
    unit="immud-lease-a1.service",
    pid=42,
)


@pytest.fixture
def given(service: MemoryService) -> Record:
    service.now_leases["a1"] = GIVEN
    return GIVEN


async def test_everybody_sees_who_why_and_since_and_nothing_else(
    bus: PrivateBus, given: Record, link: Link
) -> None:
    text = await bus.busctl("introspect", *LEASE, uid=DAEMON)
    rows = {fields[0]: fields[1:] for line in text.splitlines() if (fields := line.split())}
    assert rows[".Who"][1:3] == ["u", str(NOBODY)]
    assert rows[".Why"][2] == '"because"'
    assert rows[".Since"][2] == "5"
    assert not {".Until", ".Command"} & set(rows)
    managed = ("call", "org.immud1", "/org/immud1", "org.freedesktop.DBus.ObjectManager")
    everything = await bus.busctl(*managed, "GetManagedObjects", uid=DAEMON)
    assert "because" in everything
    assert "secret-thing" not in everything
    assert 'a(oust) 1 "/org/immud1/lease/a1" 65534 "because" 5' in await bus.busctl(
        "call", *MANAGER, "ListLeases", uid=DAEMON
    )
    assert await bus.busctl("get-property", *MANAGER, "NLeases", uid=DAEMON) == "u 1\n"


async def test_the_rest_is_for_root_and_who_has_it(
    bus: PrivateBus, given: Record, link: Link
) -> None:
    for uid in (0, NOBODY):
        text = await bus.busctl("call", *LEASE, "Describe", uid=uid)
        assert '"Command" as 3 "apt" "install" "secret-thing"' in text
        assert '"Until" t 7' in text
    text = await bus.busctl("call", *LEASE, "Describe", uid=DAEMON, status=1)
    assert "Only root and who has the lease may know this." in text
    assert "secret-thing" not in text


async def test_who_has_it_ends_it_and_others_need_polkit(
    bus: PrivateBus, service: MemoryService, given: Record, link: Link
) -> None:
    authority = await bus.peer("polkit_peer.py", "no")
    await bus.busctl("call", *LEASE, "End", uid=DAEMON, status=1)
    assert authority.stdout is not None
    assert (await authority.stdout.readline()).decode().split()[0] == polkit.MANAGE_SYSTEM
    assert "a1" in service.now_leases
    await bus.busctl("call", *LEASE, "End", uid=NOBODY)
    assert service.now_leases == {}
    await asyncio.sleep(0)
    assert "lease" not in await bus.busctl("tree", "--list", "org.immud1")


async def until(seen: asyncio.Event) -> None:
    async with asyncio.timeout(5):
        await seen.wait()
    seen.clear()


async def test_records_that_come_and_go_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "GRACE", 0.2)
    place, seen = str(tmp_path / "leases"), asyncio.Event()
    watcher = subprocess.Popen(["sleep", "100"])
    found = Leases(seen.set, place)
    found.start()
    try:
        first = Record("b1", command=("x",), watcher=watcher.pid)
        record.write(first, place)
        await until(seen)
        assert found.by_id == {"b1": first}
        record.remove("b1", place)
        await until(seen)
        assert found.by_id == {}

        # The service's process ended, and nobody took the lease off the record.
        record.write(first, place)
        await until(seen)
        watcher.kill()
        watcher.wait()
        await until(seen)
        assert (found.by_id, os.listdir(place)) == ({}, [])

        # It had ended before the daemon looked; and somebody put something else there.
        record.write(first, place)
        (tmp_path / "leases/other").mkdir()
        (tmp_path / "leases/file").touch()
        await until(seen)
        await until(seen)
        assert found.by_id == {}
    finally:
        found.close()
        watcher.kill()
        watcher.wait()
