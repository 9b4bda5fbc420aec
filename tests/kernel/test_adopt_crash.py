"""Adoption cut off: killed before each of its steps, or the power gone there.

After it the machine boots, with the old layout or the new one and all data, and
the next run finishes.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from immud.adopt import Outcome, adopt, release
from immud.adopt import root as adopt_root
from immud.adopt.steps import Step
from immud.config.layout import SILVERBLUE
from immud.early.plan import Row
from tests.support import filesystems
from tests.support.filesystems import (
    HOME,
    PLAIN,
    ROWS,
    Machine,
    immutable,
    layout,
    refused,
    trees,
    void,
)
from tests.support.namespaces import ChildKilled, forked

Change = Callable[..., Outcome]

# One of each kind: with data, empty, with directories inside, volatile.
SOME = tuple(row for row in SILVERBLUE if row.path in ("/home", "/srv", "/usr/local", "/media"))


def before_step(number: int, act: Callable[[], None]) -> Callable[[Step], None]:
    """A callback that acts when the step of that number is about to be performed."""
    seen = [0]

    def progress(_step: Step) -> None:
        if seen[0] == number:
            act()
        seen[0] += 1

    return progress


def count(machine: Machine, change: Change, rows: tuple[Row, ...]) -> int:
    told, tell = os.pipe()

    def test() -> None:
        outcome = change(rows, ROWS, dry_run=True)
        os.write(tell, bytes([len(outcome.steps)]))

    machine.boot(test)
    return os.read(told, 1)[0]


def killed(change: Change, rows: tuple[Row, ...], number: int) -> None:
    """Run `change` in a process that SIGKILL ends before step `number`."""
    kill = before_step(number, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ChildKilled):
        forked(lambda: change(rows, ROWS, progress=kill))


def whole() -> None:
    """What has to be true of any machine, whatever was interrupted."""
    assert Path("/home/ada/notes").read_text() == "keep me\n"
    assert Path("/usr/local/bin/tool").exists()
    for row in SOME:
        volatile = row.path == "/media" and not os.path.exists("/run/media")  # until the boot
        assert os.path.isdir(row.path) or volatile, f"{row.path} leads nowhere"


@pytest.mark.parametrize("change", [adopt, release])
def test_killed_at_any_step_the_next_run_finishes(tmp_path: Path, change: Change) -> None:
    machine = Machine(str(tmp_path), "ext4")
    if change is release:
        machine.boot(lambda: void(adopt(SOME, ROWS)))
    machine.keep()
    wanted = [] if change is release else sorted(row.path for row in SOME)

    for number in range(count(machine, change, SOME)):

        def test(number: int = number) -> None:
            before = trees()
            killed(change, SOME, number)
            whole()
            assert trees() == before
            change(SOME, ROWS)
            assert trees() == before
            assert sorted(layout()) == wanted
            assert not [name for name in os.listdir("/") if name.startswith(".")]

        machine.back()
        machine.boot(test)


@pytest.mark.parametrize("fstype", filesystems.FILESYSTEMS)
def test_the_power_goes_at_any_step(tmp_path: Path, fstype: str) -> None:
    machine = Machine(str(tmp_path), fstype)
    machine.keep()

    for number in range(count(machine, adopt, SOME)):

        def cut(number: int = number) -> None:
            adopt(SOME, ROWS, progress=before_step(number, machine.power_cut))

        def boot() -> None:
            whole()
            made = immutable()
            assert made.layout == "done", made.problems
            whole()
            for row in PLAIN:
                assert not refused(f"{row.path}/new")
            before = trees()
            adopt(SOME, ROWS)
            assert trees() == before
            assert {row.path for row in SOME} <= set(layout())

        machine.back()
        machine.boot(cut)
        machine.after_power_cut()
        machine.boot(boot)


def test_killed_on_an_immutable_system_the_next_run_or_boot_finishes(tmp_path: Path) -> None:
    machine = Machine(str(tmp_path), "ext4")
    machine.boot(lambda: void(immutable()))
    machine.keep()
    rows = tuple(row for row in SOME if row.path in ("/home", "/usr/local"))

    for number in range(2 * len(("link", "sync", "detach", "exchange", "sync"))):

        def now(number: int = number) -> None:
            immutable()
            before = trees()
            killed(adopt, rows, number)
            whole()
            adopt(rows, ROWS)
            assert trees() == before
            for row in PLAIN:
                assert not refused(f"{row.path}/new")

        def later(number: int = number) -> None:
            immutable()
            killed(adopt, rows, number)

        def next_boot() -> None:
            assert immutable().layout == "done"
            whole()
            for row in PLAIN:
                assert not refused(f"{row.path}/new")

        machine.back()
        machine.boot(now)
        machine.back()
        machine.boot(later)
        machine.boot(next_boot)


@pytest.mark.parametrize("fstype", filesystems.FILESYSTEMS)
@pytest.mark.parametrize("change", [adopt, release])
def test_the_power_goes_between_the_two_directories(
    tmp_path: Path, fstype: str, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exchange across two directories has to be on the disk wholly or not at all."""
    machine = Machine(str(tmp_path), fstype)
    rows = (HOME,)
    if change is release:
        machine.boot(lambda: void(adopt(rows, ROWS)))

    def cut() -> None:
        flushed: list[str] = []
        flush = adopt_root.sync_directory

        def sync(path: str, root: int | None = None) -> None:
            flush(path, root)
            flushed.append(path)
            if flushed[-2:] in (["var", "."], ["."]):
                machine.power_cut()

        monkeypatch.setattr(adopt_root, "sync_directory", sync)
        change(rows, ROWS)
        assert "." in flushed

    def boot() -> None:
        before = trees()
        whole()
        change(rows, ROWS)
        assert trees() == before

    machine.boot(cut)
    machine.after_power_cut()
    machine.boot(boot)


@pytest.mark.parametrize("fstype", filesystems.FILESYSTEMS)
def test_what_is_done_is_on_the_disk(tmp_path: Path, fstype: str) -> None:
    machine = Machine(str(tmp_path), fstype)

    def change_and_cut(change: Change) -> None:
        change(PLAIN, ROWS)
        machine.power_cut()

    def adopted() -> None:
        assert sorted(layout()) == sorted(row.path for row in PLAIN)
        whole()

    def released() -> None:
        assert layout() == {}
        whole()
        assert release(PLAIN, ROWS).steps == ()

    machine.boot(lambda: change_and_cut(adopt))
    machine.after_power_cut()
    machine.boot(adopted)
    machine.boot(lambda: change_and_cut(release))
    machine.after_power_cut()
    machine.boot(released)
