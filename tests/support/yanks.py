"""Plugging in and pulling out, again and again: nothing is left, and the daemon does not grow."""

import random
from typing import NamedTuple

from tests.support.drive import Drive
from tests.support.tomb import RESIDUE, WRITE, get_state
from tests.support.vm import VM

GROWTH = 512
"""What the daemon may have more of in the end, kB: the interpreter takes memory in pieces."""
WARM = 3
"""Pulls until what is made once, at the first of its kind, has been made."""
SEED = 20

_SIZE = """
udevadm settle
pid=$(systemctl show --property=MainPID --value immud)
# Nobody else should have its pages, the children for the last pull neither.
for _ in $(seq 50); do [ -n "$(cat /proc/$pid/task/*/children)" ] || break; sleep 0.1; done
sed -n 's/^Pss: *\\([0-9]*\\) kB/\\1/p' /proc/$pid/smaps_rollup
ls /proc/$pid/fd | wc -l
echo "$pid"
"""
# One script each, for it is the round trips that take long.
_PLUGGED = f"until {get_state('open')}; do sleep 0.05; done"
_WRITTEN_TO = f"{_PLUGGED}\n{WRITE}"
# It may have been so soon that nobody knows of the drive yet: hence first of all udev's turn.
_PULLED = f"""
udevadm settle
until {get_state("absent")}; do sleep 0.05; done
while systemctl -q is-active writers; do sleep 0.05; done
{RESIDUE}
"""


class Size(NamedTuple):
    """What the daemon has: memory (PSS, kB) and descriptors."""

    pss: int
    descriptors: int
    pid: int


def size(vm: VM) -> Size:
    """What the daemon has now, when it has come to rest."""
    return Size(*map(int, vm.shell(_SIZE).split()))


def yanks(vm: VM, drive: Drive, count: int) -> None:
    """Pull the drive out `count` times, under writers, while it is opened, and at rest."""
    chance = random.Random(SEED)  # noqa: S311 - to be the same in each run
    # The kernel waits for slow drives before it looks at them, which no tomb is opened sooner by.
    vm.shell("modprobe usb-storage; echo 0 >/sys/module/usb_storage/parameters/delay_use")
    before = None
    for number in range(count):
        if number == WARM:
            before = size(vm)
        vm.plug(drive)
        scripts = {
            "written to": _WRITTEN_TO,
            "being opened": f"sleep {chance.uniform(0, 1):.2f}",
            "at rest": _PLUGGED,
        }
        # Each way of pulling it is among the first ones.
        way = [*scripts][number] if number < WARM else chance.choices([*scripts], (4, 1, 1))[0]
        vm.shell(scripts[way])
        vm.yank(drive)
        left = vm.shell(_PULLED)
        assert left == "", f"pull {number}, {way}: {left}"
    after = size(vm)
    print(f"{count} pulls: {before} -> {after}")
    assert before is not None
    assert after.pid == before.pid
    assert after.descriptors <= before.descriptors
    assert after.pss <= before.pss + GROWTH
