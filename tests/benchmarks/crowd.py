"""How much later a tomb is open when a thousand other drives appear at once, in a virtual machine.

One machine, booted once. The drive is plugged in alone, and while the kernel makes a thousand
ram disks, in turn. Measured from the kernel's `add` of the drive to its mount. In between, udev
tells of the drive, before which nobody knows what is on it: how long that took, and how long
immud from there, stands beside the figure.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from tests.benchmarks.figures import Figure, column, in_turn
from tests.benchmarks.vm import accelerator
from tests.support import cache
from tests.support.drive import Drive, luks
from tests.support.machines import HOME_UUID, with_tomb
from tests.support.stages import announce
from tests.support.tomb import wait_for
from tests.support.vm import VM, booted

RUNS = 5
DRIVES = 1000

# Prints, as one line of JSON, when the kernel announced the disk (`add`), when udev did (`known`)
# and when something was mounted (`mounted`): CLOCK_MONOTONIC, seconds.
_STOPWATCH = """
import json, os, re, select, socket, time
def listen(group):
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15)  # NETLINK_KOBJECT_UEVENT
    events.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE: there will be many
    events.bind((0, group))
    return events
names = {listen(1): "add", listen(2): "known"}
table = open("/proc/self/mountinfo")
seen, until = {}, time.monotonic() + 180
open("/run/stopwatch", "w").close()
while "mounted" not in seen and time.monotonic() < until:
    ready, _, changed = select.select(names, [], [table], 1)
    now = time.monotonic()
    for events in ready:
        data = events.recv(16384)
        if b"ACTION=add" in data and re.search(rb"DEVNAME=(/dev/)?sd[a-z]\\0", data):
            seen.setdefault(names[events], now)
    if changed:
        table.seek(0)
        if any(line.split()[4] == "/var/home" for line in table):
            seen["mounted"] = now
os.unlink("/run/stopwatch")
print(json.dumps(seen))
"""
_CROWD = ("modprobe", "brd", f"rd_nr={DRIVES}", "rd_size=4", "max_part=1")


def measure(runs: int = RUNS) -> list[Figure]:
    """`tomb.flood_delay`."""
    with tempfile.TemporaryDirectory(dir=cache.scratch()) as place:
        drive = luks(Path(place) / "drive", uuid=HOME_UUID)
        with VM(booted(with_tomb(), "tomb-trixie")) as machine:
            machine.restore()
            sides = {name: _opener(machine, drive, crowd) for name, crowd in _SIDES.items()}
            sides["alone"]()  # once unmeasured: the restored machine is cold
            taken = in_turn(sides, runs, lambda line: announce(f"opened, s {line}"))
    facts = {"runs": runs, "accelerator": accelerator(with_tomb()), "drives": DRIVES}
    udev = {name: round(median(samples), 3) for name, samples in column(taken, "udev").items()}
    return [
        Figure(
            "tomb.flood_delay",
            "plugged in to mounted while many other drives appear, in a virtual machine",
            column(taken, "plug"),
            *("crowded", "alone", "s", 1.1),
            {**facts, "of_which_until_udev_told_s": udev},
        ),
        Figure(
            "tomb.flood_delay_after_udev",
            "the same, from udev's word of the drive",
            column(taken, "immud"),
            *("crowded", "alone", "s"),
            facts=facts,
        ),
    ]


_SIDES = {"crowded": True, "alone": False}


def _opener(machine: VM, drive: Drive, crowd: bool) -> Callable[[], Mapping[str, float]]:
    def once() -> Mapping[str, float]:
        machine.shell("udevadm settle", timeout=300)
        pid = machine.start("python3", "-c", _STOPWATCH)
        machine.wait_until("test -e /run/stopwatch")
        others = machine.start(*_CROWD) if crowd else 0
        machine.plug(drive)
        seen = json.loads(machine.finish(pid, 240).stdout)
        wait_for(machine, "open")
        machine.yank(drive)
        wait_for(machine, "absent", 240)
        if crowd:
            machine.finish(others, 240)
            machine.shell("udevadm settle; rmmod brd", timeout=300)
        return {
            "plug": seen["mounted"] - seen["add"],
            "udev": seen["known"] - seen["add"],
            "immud": seen["mounted"] - seen["known"],
        }

    return once
