"""What an idle daemon holds with a tomb open, and how often it wakes up, in a virtual machine.

Beside it, what a desktop has for the same purpose: udisksd with udiskie, which watches it and
mounts. Each is measured while the other is not running, because two Python programs share the
pages of the interpreter, and PSS (proc_pid_smaps(5)) divides what is shared among its users.
"""

import tempfile
from pathlib import Path

from tests.benchmarks.figures import Figure
from tests.benchmarks.tomb import EXTRA
from tests.benchmarks.vm import accelerator
from tests.support import cache, image
from tests.support.drive import luks
from tests.support.machines import HOME_UUID, with_tomb
from tests.support.process import HarnessError
from tests.support.stages import announce, stage
from tests.support.tomb import wait_for
from tests.support.vm import VM, booted

RUNS = 1
IDLE = 60
"""Seconds for which wake-ups are counted."""

# Prints the PSS in kB of every process whose id is given.
_PSS = "for pid; do sed -n 's/^Pss: *\\([0-9]*\\) kB/\\1/p' /proc/$pid/smaps_rollup; done"

# A thread that waits gives up the processor once each time: its wake-ups, and those of no other.
_WAKE_UPS = """
count() { awk '/^voluntary_ctxt_switches/ { n += $2 } END { print n }' /proc/$1/task/*/status; }
before=$(count "$1"); sleep "$2"; after=$(count "$1"); echo $((after - before))
"""

_UDISKIE = (
    *("systemd-run", "--quiet", "--unit=udiskie", "--property=Type=exec"),
    *("dbus-run-session", "--", "udiskie", "--no-tray", "--no-notify", "--no-automount"),
)


def measure(runs: int = RUNS) -> list[Figure]:
    """`memory.pss_mb`, `memory.wakeups_60s` and `memory.pss_udisks_udiskie_mb`."""
    below = with_tomb(image.installed(extra=EXTRA))
    pss: list[float] = []
    wakes: list[float] = []
    beside: list[float] = []
    with tempfile.TemporaryDirectory(dir=cache.scratch()) as place:
        drive = luks(Path(place) / "drive", uuid=HOME_UUID)
        for _ in range(runs):
            with VM(booted(below, "bench-memory")) as machine, stage("measuring memory"):
                machine.restore()
                machine.shell("systemctl stop udisks2.service || :")
                machine.plug(drive)
                wait_for(machine, "open")
                pid = machine.shell("systemctl show --value -p MainPID immud").strip()
                machine.shell("udevadm settle; sleep 10")
                pss.append(_pss_mb(machine, pid))
                wakes.append(float(machine.shell(_WAKE_UPS, pid, str(IDLE), timeout=IDLE + 60)))
                pss.append(_pss_mb(machine, pid))
                machine.shell("systemctl stop immud.service")
                beside.append(_desktop(machine))
                announce(f"memory, MB: {pss[-2:]} beside {beside[-1]}; woke up {wakes[-1]} times")
    facts = {"runs": runs, "accelerator": accelerator(below)}
    idle = "idle with a tomb open, in a virtual machine"
    return [
        Figure("memory.pss_mb", f"PSS, {idle}", {"immud": pss}, *("immud", "", "MB", 22.0), facts),
        Figure(
            "memory.wakeups_60s",
            f"wake-ups in {IDLE} s, {idle}",
            {"immud": wakes},
            *("immud", "", "", 1.0),
            {**facts, "allowed": "the watchdog's: one every 90 s"},
        ),
        Figure(
            "memory.pss_udisks_udiskie_mb",
            "PSS of udisksd and udiskie, idle, on the same machine without immud running",
            {"udisksd + udiskie": beside},
            *("udisksd + udiskie", "", "MB", None),
            facts,
        ),
    ]


def _desktop(machine: VM) -> float:
    """Megabytes of udisksd and udiskie together, started and idle."""
    machine.shell("systemctl start udisks2.service")
    machine.run(*_UDISKIE)
    machine.shell("sleep 15")
    pids = machine.shell("pgrep -x udisksd; pgrep -f '[b]in/udiskie' | tail -n 1").split()
    if len(pids) != 2:
        said = machine.shell("journalctl -b -u udiskie -u udisks2 --no-pager -o cat | tail -n 20")
        raise HarnessError(f"udisksd and udiskie are not both running:\n{said}")
    return _pss_mb(machine, *pids)


def _pss_mb(machine: VM, *pids: str) -> float:
    """PSS of these processes together, in MB of 1024 kB, as free(1) and ps(1) have it."""
    return sum(map(int, machine.shell(_PSS, *pids).split())) / 1024
