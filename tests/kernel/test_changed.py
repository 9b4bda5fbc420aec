"""A configuration that was changed without `immud enable`, at the boots that follow."""

import os
from pathlib import Path

import pytest

from immud.config import compile  # for phase 1, which could not import it below its new root
from immud.early import elsewhere, facts, inputs, plan
from immud.early.plan import BootPlan
from tests.kernel.test_attempts import Disk
from tests.support.stock import stock_image

LOADED_LATE = (compile, elsewhere.LOADED)

OTHER_VAR = '[var]\nsource = "/data/var"\n'


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(stock_image(tmp_path, size="16M"), tmp_path / "root")


def change(text: str) -> None:
    Path(inputs.MAIN).write_text(text)


def seeded(text: str) -> None:
    change(text)
    os.makedirs("/data/var")
    Path("/data/var/.immud").touch()


def codes(made: facts.Facts) -> list[str]:
    return [problem[1] for problem in made.problems if problem[1] != "unadopted"]


def is_known(made: facts.Facts) -> None:
    assert (made.plan, made.layout, codes(made)) == ("compiled", "done", [])


def found() -> BootPlan:
    """The plan that the next boot finds."""
    return plan.decode(Path(plan.PATH).read_bytes())


def is_the_old_one(made: facts.Facts) -> None:
    assert (made.plan, codes(made)) == ("last-good", ["plan-outdated"])
    assert "var.source changed without 'immud enable'" in made.problems[0][2]
    assert not os.path.exists("/var/.immud")
    # and a reload has the generator go by that one
    assert (kept := facts.kept_plan())
    assert kept.var == "/var"


def test_a_source_that_the_generator_does_not_know_of_waits_for_immud_enable(disk: Disk) -> None:
    def enabled() -> None:
        compile.write_plan(compile.compile_now())

    def known(made: facts.Facts) -> None:
        is_known(made)
        assert os.path.exists("/var/.immud")

    disk.boot(is_the_old_one, lambda: seeded(OTHER_VAR))
    disk.plan = None
    disk.boot(is_the_old_one)
    disk.end("complete")
    disk.boot(known, enabled)


def test_so_does_what_is_to_be_held_back(disk: Disk) -> None:
    def check(made: facts.Facts) -> None:
        assert (made.plan, codes(made)) == ("last-good", ["plan-outdated"])
        assert "boot.hold_back changed without" in made.problems[0][2]
        assert found().hold == ()

    disk.boot(check, lambda: change('[boot]\nhold_back = ["db.service"]\n'))


def test_anything_else_is_for_this_boot_and_no_longer_news_to_the_next(disk: Disk) -> None:
    def first(made: facts.Facts) -> None:
        assert (made.plan, made.layout, codes(made)) == ("fresh", "done", [])
        assert not os.path.islink("/srv")

    disk.boot(first, lambda: change('[links]\n"/srv" = false\n'))
    disk.plan = None
    disk.boot(is_known)


def test_a_plan_that_is_gone_is_there_at_the_next_boot(disk: Disk) -> None:
    def first(made: facts.Facts) -> None:
        assert (made.plan, codes(made)) == ("fresh", ["plan-missing"])

    disk.boot(first, lambda: os.unlink(plan.PATH))
    disk.plan = None
    disk.boot(is_known)


def test_where_it_cannot_be_replaced_that_is_said(
    disk: Disk, capfd: pytest.CaptureFixture[str]
) -> None:
    def prepare() -> None:
        change('[links]\n"/srv" = false\n')
        os.mkdir(plan.PATH + ".new")

    disk.boot(lambda made: None, prepare)
    assert "[plan-unwritable]" in capfd.readouterr().err
