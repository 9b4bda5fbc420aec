"""Findings on the bus, seen by another user, and `immud verify` over it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from immud.bus.link import Link
from immud.client import Client
from immud.errors import ImmudError
from immud.model import Breach, Finding
from tests.bus.memory import MemoryService
from tests.bus.private import NOBODY, PrivateBus
from tests.bus.test_command import IMMUD, as_nobody
from tests.bus.test_objects import MANAGER, ROOT

PATH = f"{ROOT}/finding/3"
FINDING = Finding(
    3,
    Breach.WRITABLE,
    "/usr",
    "read-only",
    "writable",
    "/usr has become writable, in mount namespace 4026532436",
    namespace=4026532436,
    since=1_700_000_000_000_000,
    since_monotonic=77,
    by="inside",
    pid=12,
    command="sleep",
    unit="sneaky.service",
)


async def test_a_finding_comes_and_goes(
    bus: PrivateBus, link: Link, service: MemoryService
) -> None:
    told: list[tuple[str, Any]] = []

    async with Client(bus.address) as client:
        signals = await client.subscribe()

        async def listen() -> None:
            async for signal in signals:
                told.append((signal.member, signal.body))

        listening = asyncio.ensure_future(listen())
        service.now_findings = {3: FINDING}
        service.changed()
        assert await bus.json("get-property", *MANAGER, "Integrity") == "violated"
        assert await bus.json("get-property", *MANAGER, "NFindings") == 1
        text = await bus.busctl("introspect", "org.immud1", PATH, uid=NOBODY)
        rows = {fields[0]: fields[1:] for line in text.splitlines() if (fields := line.split())}
        assert rows[".Path"] == ["property", "s", '"/usr"', "const"]
        assert rows[".Since"] == ["property", "t", "1700000000000000", "const"]
        assert rows[".SinceMonotonic"][2] == "77"
        assert rows[".Namespace"][2] == "4026532436"
        assert rows[".Pid"][2] == "12"
        assert rows[".By"][2] == '"inside"'
        assert (await bus.json("call", *MANAGER, "ListFindings"))[0] == [
            [PATH, "writable", "/usr", FINDING.text]
        ]
        service.now_findings = {}
        service.changed()
        assert await bus.json("get-property", *MANAGER, "Integrity") == "intact"
        listening.cancel()
        await asyncio.wait([listening])
    members = [member for member, _ in told]
    assert members.count("FindingRaised") == members.count("FindingCleared") == 1
    body = [3, PATH, "writable", "/usr", FINDING.text]
    assert ("FindingRaised", body) in told
    assert ("FindingCleared", body) in told
    (added,) = [body for member, body in told if member == "InterfacesAdded"]
    assert added[0] == PATH
    assert added[1]["org.immud1.Finding"]["Unit"] == "sneaky.service"
    (removed,) = [body for member, body in told if member == "InterfacesRemoved"]
    assert removed[0] == PATH
    changed = [body[1] for member, body in told if member == "PropertiesChanged"]
    assert {"Integrity": "violated", "NFindings": 1}.items() <= changed[0].items()


async def test_one_that_is_worse_now_changes_and_is_not_raised_again(
    bus: PrivateBus, link: Link, service: MemoryService
) -> None:
    service.now_findings = {3: FINDING}
    service.changed()
    finding = ("org.immud1", PATH, "org.immud1.Finding")
    assert await bus.json("get-property", *finding, "Actual") == "writable"
    service.now_findings = {3: Finding(3, Breach.WRITABLE, "/usr", "read-only", "worse", "x")}
    service.changed()
    assert await bus.json("get-property", *finding, "Actual") == "worse"


async def test_verify_looks_first_and_its_exit_code_tells(
    bus: PrivateBus, link: Link, service: MemoryService
) -> None:
    command = as_nobody(bus)
    text = await bus.run(*command, "verify", uid=NOBODY)
    assert text == "Everything is as this boot left it.\n"
    assert service.verified == 1
    service.now_findings = {3: FINDING}
    text = await bus.run(*command, "verify", uid=NOBODY, status=1)
    assert "in mount namespace 4026532436.\n" in text
    assert "seen by   sleep (pid 12) of sneaky.service\n" in text
    metrics = Path(bus.directory, "immud.prom")
    record = json.loads(
        await bus.run(*IMMUD, "verify", "--json", "--metrics", str(metrics), status=1)
    )
    assert record["integrity"] == "violated"
    assert record["findings"][0]["Kind"] == "writable"
    assert record["findings"][0]["SinceMonotonic"] == 77
    assert 'immud_findings{kind="writable",path="/usr"} 1\n' in metrics.read_text()


async def test_verify_without_a_daemon_is_3_and_leaves_no_good_figures(bus: PrivateBus) -> None:
    metrics = Path(bus.directory, "immud.prom")
    metrics.write_text("immud_intact 1\n")
    await bus.run(*IMMUD, "verify", "--metrics", str(metrics), status=3)
    assert "immud_intact" not in metrics.read_text()
    assert "immud_up 0\n" in metrics.read_text()


async def test_verify_that_could_not_look_is_no_good_day(
    bus: PrivateBus, link: Link, service: MemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def blind() -> None:
        raise ImmudError("Other mount namespaces could not be looked at")

    monkeypatch.setattr(service, "verify", blind)
    metrics = Path(bus.directory, "immud.prom")
    metrics.write_text("immud_intact 1\n")
    said = await bus.run(*IMMUD, "verify", "--metrics", str(metrics), status=1)
    assert said == "immud: Other mount namespaces could not be looked at\n"
    text = metrics.read_text()
    assert "immud_up 1\n" in text
    assert "immud_intact" not in text
    assert "immud_findings" not in text
