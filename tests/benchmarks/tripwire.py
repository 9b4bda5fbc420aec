"""What one change of the mount table costs the daemon, with few mounts and with ten thousand.

In a container, the real daemon: its processor time (all of it, kernel and user, by
proc_pid_schedstat) while somebody mounts and unmounts, divided by the number of changes. They
are further apart than the daemon's own pause, so that each is looked at by itself, and last for
long enough to have in them the looks at the whole table that follow changes (before Linux 6.14,
where the kernel does not name every mount that is attached). The many mounts are
binds in a private directory: they are there, and PID 1 and other namespaces do not see them come.

Beside it, the same where statmount(2) and listmount(2) are not to be used, as on Linux 6.1.
"""

from collections.abc import Callable, Mapping

from tests.benchmarks.figures import Figure, column, in_turn
from tests.support.container import Container
from tests.support.machines import adopted
from tests.support.process import HarnessError
from tests.support.stages import announce

RUNS = 3
FEW, MANY = 30, 10_000
CHANGES, APART = 150, 0.1

_SLOWLY = "[Service]\nEnvironment=IMMUD_MOUNTINFO=1\n"

_FILL = """
import os, sys
sys.path.append("/usr/lib/python3/dist-packages")
from immud.early import kernel
os.mkdir("/run/many")
kernel.mount("tmpfs", "/run/many", "tmpfs", 0)
kernel.mount(None, "/run/many", None, kernel.MS_PRIVATE)
there = len(open("/proc/self/mountinfo").readlines())
for number in range(there, int(sys.argv[1])):
    os.mkdir(f"/run/many/{number}")
    kernel.mount("/run/many", f"/run/many/{number}", None, kernel.MS_BIND)
"""

_CHANGE = """
import os, sys, time
sys.path.append("/usr/lib/python3/dist-packages")
from immud.early import kernel
pid, changes, apart = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
os.makedirs("/run/one", exist_ok=True)
def spent():
    return int(open(f"/proc/{pid}/schedstat").read().split()[0])
before = spent()
for _ in range(changes // 2):
    kernel.mount("tmpfs", "/run/one", "tmpfs", 0)
    time.sleep(apart)
    kernel.umount2("/run/one")
    time.sleep(apart)
print((spent() - before) / changes / 1e6)
"""


def measure(runs: int = RUNS) -> list[Figure]:
    """`tripwire.change_10000_vs_30`, and the same without statmount."""
    sides: dict[str, Callable[[], Mapping[str, float]]] = {}
    with (
        Container(adopted()) as few,
        Container(adopted()) as many,
        Container(adopted()) as few_slowly,
        Container(adopted()) as many_slowly,
    ):
        for name, machine, mounts in (
            ("10000 mounts", many, MANY),
            ("30 mounts", few, FEW),
            ("10000 by mountinfo", many_slowly, MANY),
            ("30 by mountinfo", few_slowly, FEW),
        ):
            slowly = name.endswith("mountinfo")
            sides[name] = _side(machine, mounts, slowly=slowly)
        taken = in_turn(sides, runs, lambda line: announce(f"a change of the table, ms {line}"))
    samples = column(taken, "change")
    facts = {"runs": runs, "changes": CHANGES, "measured": "the daemon's own processor time"}
    return [
        Figure(
            "tripwire.change_10000_vs_30",
            "processor time of one change of the mount table",
            {name: samples[name] for name in ("10000 mounts", "30 mounts")},
            *("10000 mounts", "30 mounts", "ms", 1.5),
            facts,
        ),
        Figure(
            "tripwire.change_10000_vs_30_mountinfo",
            "the same without statmount and listmount, as on Linux 6.1",
            {name: samples[name] for name in ("10000 by mountinfo", "30 by mountinfo")},
            *("10000 by mountinfo", "30 by mountinfo", "ms", None),
            facts,
        ),
    ]


def _side(machine: Container, mounts: int, *, slowly: bool) -> Callable[[], Mapping[str, float]]:
    """Boot, fill up, and wait for the daemon to have come to rest."""
    if slowly:
        machine.disk.write("/etc/systemd/system/immud.service.d/x.conf", _SLOWLY)
    machine.boot()
    machine.wait_until("busctl", "status", "org.immud1")
    machine.run("/usr/bin/python3", "-c", _FILL, str(mounts), timeout=300)
    machine.run("sleep", "8")
    pid = machine.run("systemctl", "show", "--value", "-p", "MainPID", "immud").stdout.strip()

    def once() -> Mapping[str, float]:
        argv = ("/usr/bin/python3", "-c", _CHANGE, pid, str(CHANGES), str(APART))
        spent = float(machine.run(*argv, timeout=300).stdout)
        if machine.run("immud", "verify", check=False).status:
            raise HarnessError("the mounts of the benchmark are taken for tampering")
        return {"change": spent}

    return once
