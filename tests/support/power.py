"""Power cuts at moments of chance, while somebody adopts, releases, enables or disables.

The disk afterwards is what had reached it by then: what was not synced is lost. It is
booted, has to come up whole, and is gone on with, so that what one cut left meets the next.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from immud.adopt import adopt, finish, release
from immud.config.compile import compile_now, remove_plan, write_plan
from immud.early import attempts, main, plan
from immud.early.plan import decode
from tests.support.filesystems import PLAIN, ROWS, Machine, refused, trees, void
from tests.support.two_disks import TwoDisks

SEED = 1123
# Longer than any of the works takes: some cuts come after its end.
LONGEST = 0.05


def enable() -> None:
    """What `immud enable` writes."""
    write_plan(compile_now())
    attempts.write(0)


WORKS: dict[str, Callable[[], None]] = {
    "adopt": lambda: void(adopt(PLAIN, ROWS)),
    "release": lambda: void(release(PLAIN, ROWS)),
    "enable": enable,
    "disable": lambda: void(remove_plan()),
}


def copied(change: Callable[..., object]) -> None:
    """Adopt or release between two disks, where what an earlier one kept has to go first."""
    finish(PLAIN, ROWS)
    change(PLAIN, ROWS)


COPYING: dict[str, Callable[[], None]] = {
    "adopt": lambda: copied(adopt),
    "release": lambda: copied(release),
}
# Four programs for each path.
LONGEST_COPYING = 4.0


def cut_at_random(
    directory: Path, fstype: str, *, count: int, seed: int, var: str = ""
) -> Counter[str]:
    """Cut the power `count` times; how often during each work. Raises AssertionError.

    With `var`, a file system, /var is on a disk of its own, and what is adopted is copied.
    """
    machine = TwoDisks(str(directory), fstype, var) if var else Machine(str(directory), fstype)
    works, longest = (COPYING, LONGEST_COPYING) if var else (WORKS, LONGEST)
    chance = random.Random(seed)  # noqa: S311 - to be the same in each run
    done: Counter[str] = Counter()
    for number in range(count):
        name = chance.choice(sorted(works))
        # Squared: most works are over soon, and their first moments are the interesting ones.
        moment = longest * chance.random() ** 2
        frozen = chance.random() < 0.5
        note = f"cut {number} (seed {seed}): {moment * 1000:.1f} ms into {name}"

        def cut(name: str = name, moment: float = moment, frozen: bool = frozen) -> None:
            if frozen:
                main.lay_out()
            _cut(machine, works[name], moment)

        try:
            machine.boot(cut)
            machine.after_power_cut()
            machine.boot(come_up)
        except BaseException as error:
            error.add_note(note)
            raise
        done[name] += 1
    return done


def _cut(machine: Machine, work: Callable[[], None], moment: float) -> None:
    """Let `work` run for `moment` seconds in a process of its own, then take the power away."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    time.sleep(moment)
    # Stopped, or the disk would be of many moments: it is copied in pieces.
    # So is what it has started; in this namespace there is nothing else.
    assert os.getpid() == 1
    for name in os.listdir("/proc"):
        if name.isdecimal() and name != "1":
            with suppress(ProcessLookupError):
                os.kill(int(name), signal.SIGSTOP)
    machine.power_cut()
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the work failed by itself"


def come_up() -> None:
    """Boot as the machine would: no data is lost, the layout is whole, the next work can begin."""
    before = trees()
    assert Path("/home/ada/notes").read_text() == "keep me\n"
    assert Path("/usr/local/bin/tool").exists()
    with suppress(FileNotFoundError):  # not enabled yet, or not any more
        decode(Path(plan.PATH).read_bytes())
    made = main.lay_out()
    assert made.layout == "done", made.problems
    for row in PLAIN:
        assert os.path.isdir(row.path), f"{row.path} leads nowhere"
        assert not refused(f"{row.path}/new"), row.path
    after = trees()
    for path, seen in before.items():
        assert seen.keys() <= after[path].keys(), path
