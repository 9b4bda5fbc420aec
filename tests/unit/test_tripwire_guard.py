"""Looking, as the daemon does it, where it cannot be done."""

import asyncio
from typing import Any
from unittest.mock import AsyncMock

import pytest

from immud.child import ChildTimeout
from immud.early import mountinfo
from immud.early.facts import Facts
from immud.early.plan import BootPlan
from immud.errors import ImmudError
from immud.model import Severity, Tripwire
from immud.tripwire import elsewhere, guard
from immud.tripwire.rule import Expected, Tree
from tests.unit.test_tripwire_rule import DISK, entry


def test_a_survey_that_failed_is_no_good_day(monkeypatch: pytest.MonkeyPatch) -> None:
    surveys: list[Exception | list[Any]] = [ChildTimeout("too late"), OSError(12, "no memory"), []]
    changes: list[str] = []

    async def in_child(*_: object, **__: object) -> Any:
        match surveys.pop(0):
            case Exception() as error:
                raise error
            case sights:
                return sights

    async def verify() -> None:
        watch = guard.Guard(
            BootPlan(),
            Facts(),
            tombs=tuple,
            changed=lambda: changes.append("changed"),
            look=lambda: None,
            policy=Tripwire,
            reconcile=AsyncMock(),
        )
        try:
            for _ in range(2):
                with pytest.raises(ImmudError, match="could not be looked at"):
                    await watch.verify()
                (problem,) = watch.problems(())
                assert (problem.severity, problem.code) == (Severity.WARNING, "tripwire-blind")
            await watch.verify()
            assert watch.problems(()) == ()
        finally:
            await watch.close()

    monkeypatch.setattr(guard, "in_child", in_child)
    asyncio.run(verify())
    assert changes == ["changed"] * 3


def test_a_long_table_is_gone_through_for_the_hits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    way_in = entry("/mnt/a", root="/usr")
    entries = (entry("/"), *(entry(f"/run/{n}", dev="0:50", root="/") for n in range(2000)), way_in)
    asked: list[str] = []

    def top(_: object, path: str) -> mountinfo.MountEntry:
        asked.append(path)
        return way_in

    monkeypatch.setattr(mountinfo, "read", lambda _: entries)
    monkeypatch.setattr(mountinfo, "top", top)
    expected = Expected(trees=(Tree("/usr", True, DISK, "/usr", "rw"),))
    (broken,) = elsewhere._ways_in(1, 7, expected)
    assert (broken.path, asked) == ("/mnt/a", ["/mnt/a"])
