"""Phase 1 with an /etc or /var from elsewhere, on a real file system."""

import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

# Everything phase 1 loads late, because below the new root there is nothing to load from.
from immud.early import (
    elsewhere,
    execute,
    facts,
    main,
    pid1,
    plan,
    steps,
)
from immud.early.plan import BootPlan
from tests.support.namespaces import ChildKilled, forked
from tests.support.phase1 import SILVERBLUE, booted, refuses, table


def test_etc_may_come_from_elsewhere(tmp_path: Path) -> None:
    def prepare() -> None:
        os.makedirs("/data/etc")
        for name in ("fstab", "machine-id"):
            Path("/data/etc", name).write_bytes(Path("/etc", name).read_bytes())
        Path("/data/etc/.immud").touch()
        Path("/data/etc/other").touch()

    def check() -> None:
        made = main.lay_out()
        assert os.path.exists("/etc/other")
        # the configuration is the one of the root file system, whichever /etc is shown
        assert os.path.exists(plan.PATH)
        assert not refuses("/etc/immud/x")
        assert {p[1] for p in made.problems if p[0] == "error"} <= {"pid1-reload"}

    booted(tmp_path, check, prepare, BootPlan(etc="/data/etc", rows=SILVERBLUE))


def test_nothing_is_held_back_where_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    def check() -> None:
        main.lay_out()
        assert os.path.exists(facts.SOURCES_OK)

    booted(tmp_path, check)


def test_cut_off_with_the_sources_in_place_the_next_run_says_so_and_tells_pid_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def prepare() -> None:
        for name in ("etc", "var"):
            os.makedirs(f"/data/{name}")
            Path("/data", name, ".immud").touch()
        for name in ("fstab", "machine-id"):
            Path("/data/etc", name).write_bytes(Path("/etc", name).read_bytes())

    def tell(what: str, _seconds: int) -> list[steps.Problem]:
        told.append(what)
        return []

    def cut_off() -> None:
        def perform(*arguments: Any) -> NoReturn:
            real(*arguments)
            os._exit(9)

        real = execute.perform
        monkeypatch.setattr(execute, "perform", perform)
        main.lay_out()

    def check() -> None:
        monkeypatch.setattr(pid1, "call", tell)
        with pytest.raises(ChildKilled):
            forked(cut_off)
        before = table()
        assert ("/var", "/data/var", False) in before
        assert not os.path.exists(facts.SOURCES_OK)
        assert main.lay_out().layout == "done"
        assert told == ["reexec"]
        assert os.path.exists(facts.SOURCES_OK)
        assert table() == before

    sources = BootPlan(etc="/data/etc", var="/data/var", rows=SILVERBLUE)
    booted(tmp_path, check, prepare, sources)


@pytest.mark.parametrize(
    ("marks", "said"),
    [((), "it holds no .immud file"), ((".immud", elsewhere.UNFINISHED), "cut off")],
)
def test_a_source_that_is_not_marked_as_whole_is_not_used(
    tmp_path: Path, marks: tuple[str, ...], said: str
) -> None:
    def prepare() -> None:
        os.makedirs("/data/var")
        for name in marks:
            Path("/data/var", name).touch()

    def check() -> None:
        made = main.lay_out()
        assert made.layout == "partial"
        assert any(p[1] == "source-missing" and said in p[2] for p in made.problems)
        assert os.path.isdir("/var/lib")
        assert not refuses("/var/x")
        assert not os.path.exists(facts.SOURCES_OK)

    booted(tmp_path, check, prepare, BootPlan(var="/data/var", rows=SILVERBLUE))
