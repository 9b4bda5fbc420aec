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

from immud.adopt import adopt, release
from immud.compile import compile_now, remove_plan, write_plan
from immud.early import attempts, main, plan
from immud.early.plan import decode
from tests.support.filesystems import PLAIN, ROWS, Machine, refused, trees, void

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


def cut_at_random(directory: Path, fstype: str, *, count: int, seed: int) -> Counter[str]:
    """Cut the power `count` times; how often during each work. Raises AssertionError."""
    machine = Machine(str(directory), fstype)
    chance = random.Random(seed)  # noqa: S311 - to be the same in each run
    done: Counter[str] = Counter()
    for number in range(count):
        name = chance.choice(sorted(WORKS))
        # Squared: most works are over soon, and their first moments are the interesting ones.
        moment = LONGEST * chance.random() ** 2
        frozen = chance.random() < 0.5
        note = f"cut {number} (seed {seed}): {moment * 1000:.1f} ms into {name}"

        def cut(name: str = name, moment: float = moment, frozen: bool = frozen) -> None:
            if frozen:
                main.lay_out()
            _cut(machine, WORKS[name], moment)

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
    os.kill(child, signal.SIGSTOP)
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
