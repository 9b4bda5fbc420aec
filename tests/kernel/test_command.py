"""The commands that change or foretell the layout, on a system of their own."""

import importlib
import io
import json
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from immud.cli import main
from immud.cli.parser import COMMANDS
from immud.config.compile import compile_now, write_plan
from immud.early import facts, mountinfo, plan
from immud.early import main as phase1
from immud.early.plan import BootPlan
from tests.support.filesystems import PLAIN, Machine, snapshot

# Everything the commands import when they run: in the system of the test there is no Python.
NEEDED = (
    *(f"immud.cli.{command.module}" for command in COMMANDS),
    *("asyncio", "immud.run", "immud.early.elsewhere", "immud.adopt", "json", "difflib"),
)
LOADED = tuple(map(importlib.import_module, NEEDED))
OUTSIDE = os.readlink("/proc/self/ns/mnt")


def immud(*arguments: str) -> tuple[int, str, str]:
    """Run a command in this very process, which has to be in a namespace of its own."""
    assert os.readlink("/proc/self/ns/mnt") != OUTSIDE
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(list(arguments))
    return code, out.getvalue(), err.getvalue()


def on_ext4(tmp_path: Path, test: Callable[[], None]) -> None:
    Machine(str(tmp_path), "ext4").boot(test)


def links() -> set[str]:
    return {row.path for row in PLAIN if os.path.islink(row.path)}


def test_adopt_and_release(tmp_path: Path) -> None:
    def test() -> None:
        before = snapshot("/")
        code, dry, _ = immud("adopt", "--dry-run")
        assert code == 0
        assert "exchange /home and " in dry
        assert snapshot("/") == before

        code, record, err = immud("adopt", "--json", "--dry-run", "/home")
        said = json.loads(record)
        assert (code, err, said["done"]) == (0, "", False)
        assert "Exchange" in [step["operation"] for step in said["steps"]]
        assert not [step for step in said["steps"] if "/opt" in step["description"]]
        assert snapshot("/") == before

        code, _, _ = immud("adopt", "/home/")
        assert code == 0
        assert links() == {"/home"}
        code, _, _ = immud("adopt")
        assert code == 0
        assert links() == {row.path for row in PLAIN}
        code, again, _ = immud("adopt")
        assert (code, again.splitlines()[0]) == (
            0,
            "Nothing to adopt: every row is as it should be.",
        )
        assert immud("release")[0] == 0
        assert links() == set()
        assert Path("/home/ada/notes").read_text() == "keep me\n"

    on_ext4(tmp_path, test)


def test_the_plan_is_brought_up_to_date_where_there_is_one(tmp_path: Path) -> None:
    def test() -> None:
        immud("adopt", "/opt")
        assert not os.path.exists(plan.PATH)
        write_plan(BootPlan(wait=99))
        immud("adopt", "/home")
        assert plan.decode(Path(plan.PATH).read_bytes()) == compile_now()

    on_ext4(tmp_path, test)


def test_a_path_that_is_no_row_is_wrong_usage(tmp_path: Path) -> None:
    def test() -> None:
        code, out, err = immud("adopt", "/home", "/nonsense")
        assert (code, out) == (2, "")
        assert err.startswith("immud: /nonsense is not in the layout; its rows are /home, /opt, ")
        assert links() == set()

    on_ext4(tmp_path, test)


def test_plan_foretells_the_next_boot_before_it_and_after_it(tmp_path: Path) -> None:
    """The steps printed are those a boot performs, and mounts of this boot hide none of them."""
    machine = Machine(str(tmp_path), "ext4")

    def first() -> None:
        write_plan(compile_now())
        code, said, _ = immud("plan")
        assert code == 0
        told = [line.split()[:2] for line in said.splitlines()]
        table = len(mountinfo.read())
        made = phase1.lay_out()
        assert made.layout == "done", made.problems
        facts.write(made)
        attached = len([step for step in told if step[0] in ("mount", "tmpfs")])
        assert len(mountinfo.read()) == table + attached

        code, said, _ = immud("plan")
        assert code == 0
        again = [line.split()[:2] for line in said.splitlines()]
        # Links and directories made by this boot stay; every mount has to be made again.
        persistent = ("link", "directory", "exchange")
        mounts = [step for step in told if step[0] not in persistent]
        assert [step for step in again if step[0] not in persistent] == mounts
        assert ["read-only", "/"] in again
        assert not [step for step in again if step[0] in ("link", "exchange")]
        Path("/var/foretold").write_text(said)

    def second() -> None:
        _, said, _ = immud("plan")
        assert said == Path("/var/foretold").read_text()

    machine.boot(first)
    machine.boot(second)
