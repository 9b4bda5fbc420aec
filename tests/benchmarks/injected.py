"""How much later a tomb is open when a thousand uevents are injected as it is plugged in.

In a virtual machine, booted once, whose udev has nothing else to do. A program in it has the
messages ready, waits for the kernel's `add` of the drive, and sends them as fast as it can, as udev
would: of disks that are there, which come and change, and of some that are not, all tagged for
immud. Beside that stands the same without, and with messages that have no tag, which the
kernel keeps from everybody: they cost what the sending costs in a machine of two processors.
"""

import pickle
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median

from tests.benchmarks.delay import figures, opener
from tests.benchmarks.figures import Figure, in_turn
from tests.benchmarks.vm import accelerator
from tests.support import cache
from tests.support.drive import luks
from tests.support.machines import HOME_UUID, with_tomb
from tests.support.stages import announce
from tests.support.uevents import message, volume
from tests.support.vm import VM, booted

RUNS = 15
EVENTS = 1000
DISKS = EVENTS // 2

# Prints, as JSON, the seconds that the sending took.
_SENDER = """
import os, pickle, re, socket, sys, time
events = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15)  # NETLINK_KOBJECT_UEVENT
events.bind((0, 1))
udev = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
with open(sys.argv[1], "rb") as file:
    messages = pickle.load(file)
open("/run/sender", "w").close()
while not re.match(rb"add@.*/block/sd[a-z]\\0", events.recv(16384)):
    pass
began = time.monotonic()
for message in messages:
    udev.sendto(message, (0, 2))
print(time.monotonic() - began)
os.unlink("/run/sender")
"""


def measure(runs: int = RUNS) -> list[Figure]:
    """`tomb.flood_delay` and what of it is the sender's."""
    with tempfile.TemporaryDirectory(dir=cache.scratch()) as place:
        drive = luks(Path(place) / "drive", uuid=HOME_UUID)
        with VM(booted(with_tomb(), "tomb-trixie")) as machine:
            machine.restore()
            machine.shell(f"modprobe brd rd_nr={DISKS} rd_size=4 max_part=1", timeout=240)
            sent: dict[str, list[float]] = {}
            sides = {"alone": opener(machine, drive, nullcontext)}
            for name, tag in (("flooded", "immud"), ("untagged", "")):
                took = sent[name] = []
                sides[name] = opener(machine, drive, partial(_flood, machine, tag, took))
            for side in sides.values():  # once unmeasured: the restored machine is cold
                side()
            taken = in_turn(sides, runs, lambda line: announce(f"opened in a flood, s {line}"))
    facts = {
        "runs": runs,
        "accelerator": accelerator(with_tomb()),
        "events": EVENTS,
        "sending_took_s": {name: round(median(took), 3) for name, took in sent.items()},
    }
    what = "plugged in to mounted while many uevents are injected, in a virtual machine"
    untagged = "the same with uevents that reach nobody"
    return [
        *figures("tomb.flood_delay", what, taken, "flooded", "alone", bar=1.1, facts=facts),
        *figures("tomb.flood_unheard", untagged, taken, "untagged", "alone", bar=None, facts=facts),
    ]


def mixed(run: int) -> Iterator[Mapping[str, str]]:
    """Three in four are of a disk that is there, and say something new of it, in every run."""
    for turn in range(EVENTS // 4):
        for number, action, missing in (
            (turn, "add", False),
            (turn, "add", True),
            (turn + EVENTS // 4, "change", False),
            (turn, "change", False),
        ):
            label = {"ID_FS_LABEL": f"{action}{run}"}
            yield {**volume(number, action, "" if missing else f"ram{number}"), **label}


@contextmanager
def _flood(machine: VM, tag: str, took: list[float]) -> Iterator[None]:
    messages = pickle.dumps([message(event, tag) for event in mixed(len(took))])
    machine.run("sh", "-c", "cat >/run/messages", input=messages)
    sender = machine.start("python3", "-ISE", "-c", _SENDER, "/run/messages")
    machine.wait_until("test -e /run/sender")
    yield
    took.append(float(machine.finish(sender).stdout))
