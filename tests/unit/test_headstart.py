"""The child that stands by for a drive that is coming: one, for a while, for who is first."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from immud.tomb.luks import headstart
from immud.tomb.luks.headstart import HeadStart


class Standbys:
    """In place of the forked child, which tests/unit/test_run.py tries."""

    def __init__(self) -> None:
        self.made = self.dismissed = 0

    def __call__(self, prepare: Callable[[], None], function: Callable[..., Any]) -> "Standbys":
        self.made += 1
        return self

    def dismiss(self) -> None:
        self.dismissed += 1


@pytest.fixture
def standbys(monkeypatch: pytest.MonkeyPatch) -> Standbys:
    found = Standbys()
    monkeypatch.setattr(headstart, "Standby", found)
    monkeypatch.setattr(headstart, "PATIENCE", 0.05)
    return found


async def test_a_thousand_drives_are_one_child(standbys: Standbys) -> None:
    first = HeadStart()
    for _ in range(1000):
        first.prepare()
    assert standbys.made == 1
    assert first.take() is not None
    assert first.take() is None, "it is taken once"
    await asyncio.sleep(0.1)
    assert standbys.dismissed == 0, "and then it is its taker's"
    first.prepare()
    assert standbys.made == 2


async def test_it_does_not_wait_for_ever(standbys: Standbys) -> None:
    first = HeadStart()
    first.prepare()
    await asyncio.sleep(0.1)
    assert standbys.dismissed == 1
    assert first.take() is None
    first.close()
    assert standbys.dismissed == 1
