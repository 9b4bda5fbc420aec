"""Copying adoptions cut off: killed before a step or in the middle of one, or the power gone.

One of the two, original or copy, is whole and in use afterwards, and the next run finishes.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from immud.adopt import Outcome, adopt, finish, release
from immud.adopt.steps import Step
from immud.errors import Busy
from tests.kernel.test_adopt_across import KEPT, PAIRS, content, hidden
from tests.kernel.test_adopt_crash import before_step, count, killed
from tests.support.filesystems import HOME, ROWS, immutable, layout, refused, void
from tests.support.two_disks import TwoDisks

SOME = tuple(row for row in ROWS if row.path in ("/home", "/srv"))
Change = Callable[..., Outcome]


def homes() -> tuple[object, ...]:
    return content("/home"), content("/srv")


def done(change: Change) -> None:
    """What has to be true once a change has been finished."""
    assert sorted(layout()) == ([] if change is release else ["/home", "/srv"])
    assert hidden() == []
    assert os.path.isdir("/var/home.immud-released" if change is release else KEPT)


@pytest.mark.parametrize("change", [adopt, release])
def test_killed_at_any_step_the_next_run_finishes(tmp_path: Path, change: Change) -> None:
    machine = TwoDisks(str(tmp_path), "ext4", "xfs")
    if change is release:
        machine.boot(lambda: void((adopt(SOME, ROWS), finish(SOME, ROWS))))
    machine.keep()

    for number in range(count(machine, change, SOME)):

        def test(number: int = number) -> None:
            before = homes()
            killed(change, SOME, number)
            assert homes() == before
            change(SOME, ROWS)
            assert homes() == before
            done(change)

        machine.back()
        machine.boot(test)


@pytest.mark.parametrize(
    ("pair", "change"),
    zip(PAIRS, (adopt, release, adopt), strict=True),
    ids=map("-".join, PAIRS),
)
def test_the_power_goes_at_any_step(tmp_path: Path, pair: tuple[str, str], change: Change) -> None:
    machine = TwoDisks(str(tmp_path), *pair)
    if change is release:
        machine.boot(lambda: void((adopt((HOME,), ROWS), finish((HOME,), ROWS))))
    machine.keep()
    told, tell = os.pipe()
    machine.boot(lambda: void(os.write(tell, repr(content("/home")).encode())))
    before = os.read(told, 1 << 16).decode()

    for number in range(count(machine, change, (HOME,))):

        def cut(number: int = number) -> None:
            change((HOME,), ROWS, progress=before_step(number, machine.power_cut))

        def boot() -> None:
            assert repr(content("/home")) == before
            assert immutable().layout == "done"
            assert not refused("/home/new")
            change((HOME,), ROWS)
            assert repr(content("/home")) == before
            assert ("/home" in layout()) == (change is adopt)
            assert not [name for name in os.listdir("/var") if name.startswith(".immud")]

        machine.back()
        machine.boot(cut)
        machine.after_power_cut()
        machine.boot(boot)


def test_a_copy_that_was_cut_off_is_gone_on_with(tmp_path: Path) -> None:
    machine = TwoDisks(str(tmp_path), "ext4", "xfs")
    half = Path("/var/.immud.home/home")

    def cut() -> None:
        for number in range(50):
            with open(f"/home/ada/{number}", "wb") as file:
                file.write(os.urandom(40_000))
                file.flush()
                os.fsync(file.fileno())

        def heard(words: str) -> None:
            if words == "comparing":
                machine.power_cut()

        adopt((HOME,), ROWS, told=heard)

    def boot() -> None:
        assert os.stat(half.parent).st_mode & 0o777 == 0o700
        assert layout() == {}
        before = content("/home")
        copied = {name: os.lstat(half / "ada" / name).st_ino for name in os.listdir(half / "ada")}
        assert "49" in copied
        Path("/home/ada/49").unlink()
        del before["/ada/49"], copied["49"]
        Path("/home/ada/48").write_text("other")
        del before["/ada/48"], copied["48"]
        adopt((HOME,), ROWS)
        after = content("/home")
        del after["/ada/48"]
        assert after == before
        assert Path("/home/ada/48").read_text() == "other"
        again = {name: os.lstat(f"/var/home/ada/{name}").st_ino for name in copied}
        assert again == copied, "what was there already has been copied anew"

    machine.boot(cut)
    machine.after_power_cut()
    machine.boot(boot)


def test_killed_while_it_copies(tmp_path: Path) -> None:
    machine = TwoDisks(str(tmp_path), "ext4", "xfs")

    def test() -> None:
        before = content("/home")
        pid = os.fork()
        if pid == 0:
            adopt((HOME,), ROWS, told=lambda _: os.kill(os.getpid(), signal.SIGKILL))
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        assert content("/home") == before
        finished()
        assert content("/home") == before
        assert os.path.islink("/home")

    def finished() -> None:
        """What goes on writing to the copy keeps the next run away for as long."""
        limit = time.monotonic() + 10
        while True:
            try:
                return void(adopt((HOME,), ROWS))
            except Busy:
                assert time.monotonic() < limit

    machine.boot(test)


def test_a_copy_that_was_placed_and_then_went_out_of_date(tmp_path: Path) -> None:
    machine = TwoDisks(str(tmp_path), "ext4", "xfs")

    def test() -> None:
        def stop(step: Step) -> None:
            if "link" in step.describe():
                os.kill(os.getpid(), signal.SIGKILL)

        pid = os.fork()
        if pid == 0:
            adopt((HOME,), ROWS, progress=stop)
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.path.exists("/var/home/ada/notes")
        Path("/home/ada/since").write_text("since")
        adopt((HOME,), ROWS)
        assert os.path.islink("/home")
        assert Path("/home/ada/since").read_text() == "since"

    machine.boot(test)
