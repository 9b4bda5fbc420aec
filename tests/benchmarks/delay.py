"""How long a tomb takes to open while something else goes on, in a virtual machine."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from statistics import median

from tests.benchmarks.figures import Figure, column
from tests.support.drive import Drive
from tests.support.tomb import wait_for
from tests.support.vm import VM

Beside = Callable[[], AbstractContextManager[None]]
"""What goes on beside the plug: about to begin, or begun, inside; over and cleared up after it."""


def opener(machine: VM, drive: Drive, beside: Beside) -> Callable[[], Mapping[str, float]]:
    """Plugs the drive in once: seconds from the kernel's `add` of it to its mount (`plug`), to
    udev's word of it (`udev`), and from there to the mount (`immud`)."""

    def once() -> Mapping[str, float]:
        machine.shell("udevadm settle", timeout=300)
        pid = machine.stopwatch("/var/home", "mounted", 180)
        with beside():
            machine.plug(drive)
            seen = machine.measured(pid, 240)
            wait_for(machine, "open")
            machine.yank(drive)
            wait_for(machine, "absent", 240)
        return {
            "plug": seen["mounted"] - seen["add"],
            "udev": seen["told"] - seen["add"],
            "immud": seen["mounted"] - seen["told"],
        }

    return once


def figures(
    key: str,
    what: str,
    taken: Mapping[str, Sequence[Mapping[str, float]]],
    *sides: str,
    bar: float | None,
    facts: Mapping[str, object],
) -> list[Figure]:
    """The delay of the first of `sides` beside the other, and that from udev's word on."""
    udev = {name: round(median(samples), 3) for name, samples in column(taken, "udev").items()}
    over, under = sides
    return [
        Figure(
            *(key, what, column(taken, "plug"), over, under, "s", bar),
            {**facts, "of_which_until_udev_told_s": udev},
        ),
        Figure(
            f"{key}_after_udev",
            "the same, from udev's word of the drive",
            column(taken, "immud"),
            *(over, under, "s"),
            facts=facts,
        ),
    ]
