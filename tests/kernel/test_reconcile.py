"""The missing steps of phase 1 performed again, in a system that runs."""

import os
import shutil
from pathlib import Path

import pytest

# Everything phase 1 loads late, because below the new root there is nothing to load from.
from immud.early import (
    facts,
    kernel,
    main,
    plan,
)
from immud.early.plan import BootPlan
from tests.support.phase1 import SILVERBLUE, booted, refuses, table


def test_reconcile_chooses_no_source_again_and_stacks_nothing(tmp_path: Path) -> None:
    def prepare() -> None:
        os.makedirs("/data/var")

    def check() -> None:
        facts.write(main.lay_out())
        before = table()
        # the source turns up, and the configuration changes, while programs use what there is
        Path("/data/var/.immud").touch()
        Path(plan.PATH).write_bytes(plan.encode(BootPlan(etc="/data/etc")))
        for _ in range(3):
            made = main.reconcile()
            facts.write(made)
            assert [p[1] for p in made.problems if p[0] == "error"] == ["source-missing"]
        assert table() == before
        # what is missing is put back all the same
        kernel.umount2("/home")
        made = main.reconcile()
        assert sorted(table()) == sorted(before)
        assert not refuses("/home/alice/x")

    booted(tmp_path, check, prepare, BootPlan(var="/data/var", rows=SILVERBLUE, root=False))


def test_a_link_made_into_something_else_stays_what_the_boot_left(tmp_path: Path) -> None:
    def prepare() -> None:
        os.symlink("var/mine", "/home2")
        for name in ("home", "srv", "mnt"):
            shutil.rmtree(f"/{name}")

    def adopted(made: facts.Facts) -> set[str]:
        return {path for path, _, state, _ in made.links if state == "adopted"}

    def check() -> None:
        made = main.lay_out()
        assert made.layout == "done", made.problems
        before = adopted(made)
        assert {"/home", "/srv", "/mnt"} <= before
        facts.write(made)
        kernel.mount_setattr("/", clear=kernel.MOUNT_ATTR_RDONLY)
        os.rename("/home2", "/home")
        os.unlink("/srv")
        Path("/srv").touch()
        os.unlink("/mnt")
        os.makedirs("/mnt/released")
        for _ in range(2):
            made = main.reconcile()
            facts.write(made)
            assert adopted(facts.read() or made) == before - {"/mnt"}
            assert {p[1] for p in made.problems} >= {"foreign"}
        assert (os.readlink("/home"), Path("/srv").read_text()) == ("var/mine", "")

    booted(tmp_path, check, prepare, BootPlan(rows=SILVERBLUE[:7]))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_link_that_is_gone_comes_back_where_nothing_is_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, legacy: bool
) -> None:
    if legacy:
        monkeypatch.setenv("IMMUD_LEGACY", "1")

    def prepare() -> None:
        for name in ("home", "srv", "usr/local"):
            shutil.rmtree(f"/{name}")
            os.mkdir(f"/{name}")

    def set_(writable: bool) -> None:
        for path in ("/", "/usr"):
            change = {"clear" if writable else "set_": kernel.MOUNT_ATTR_RDONLY}
            kernel.mount_setattr(path, **change)

    def check() -> None:
        facts.write(main.lay_out())
        before = table(), os.stat("/proc/self/ns/mnt").st_ino
        set_(writable=True)
        for path in ("/home", "/srv", "/usr/local"):
            os.unlink(path)
        os.mkdir("/srv")
        set_(writable=False)
        made = main.reconcile()
        assert made.layout == "done", made.problems
        assert os.readlink("/home") == "var/home"
        assert os.readlink("/srv") == "var/srv"
        assert os.readlink("/usr/local") == "../var/usrlocal"
        assert (table(), os.stat("/proc/self/ns/mnt").st_ino) == before
        assert refuses("/usr/x")
        assert refuses("/x")

    booted(tmp_path, check, prepare, BootPlan(rows=(*SILVERBLUE[:1], *SILVERBLUE[2:7])))
