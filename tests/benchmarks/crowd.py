"""How much later a tomb is open when a thousand other drives appear at once, in a virtual machine.

One machine, booted once. The drive is plugged in alone, and while the kernel makes a thousand
ram disks, in turn. Measured from the kernel's `add` of the drive to its mount. In between, udev
tells of the drive, before which nobody knows what is on it: how long that took, and how long
immud from there, stands beside the figure.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tests.benchmarks.delay import figures, opener
from tests.benchmarks.figures import Figure, in_turn
from tests.benchmarks.vm import accelerator
from tests.support import cache
from tests.support.drive import luks
from tests.support.machines import HOME_UUID, with_tomb
from tests.support.stages import announce
from tests.support.vm import VM, booted

RUNS = 5
DRIVES = 1000

_CROWD = ("modprobe", "brd", f"rd_nr={DRIVES}", "rd_size=4", "max_part=1")


def measure(runs: int = RUNS) -> list[Figure]:
    """`tomb.crowd_delay` and `tomb.crowd_delay_after_udev`."""
    with tempfile.TemporaryDirectory(dir=cache.scratch()) as place:
        drive = luks(Path(place) / "drive", uuid=HOME_UUID)
        with VM(booted(with_tomb(), "tomb-trixie")) as machine:
            machine.restore()
            sides = {
                "crowded": opener(machine, drive, lambda: _crowd(machine)),
                "alone": opener(machine, drive, nullcontext),
            }
            sides["alone"]()  # once unmeasured: the restored machine is cold
            taken = in_turn(sides, runs, lambda line: announce(f"opened in a crowd, s {line}"))
    return figures(
        "tomb.crowd_delay",
        "plugged in to mounted while many other drives appear, in a virtual machine",
        taken,
        *("crowded", "alone"),
        bar=None,
        facts={"runs": runs, "accelerator": accelerator(with_tomb()), "drives": DRIVES},
    )


@contextmanager
def _crowd(machine: VM) -> Iterator[None]:
    others = machine.start(*_CROWD)
    yield
    machine.finish(others, 240)
    machine.shell("udevadm settle; rmmod brd", timeout=300)
