"""Unit start to READY=1, in a container: immud, mount(8) and a C program.

All three units are copies of the shipped one, with the same ordering and the same sandbox; they
differ in Type= and ExecStart= alone. Every sample is a boot of the same adopted disk, in which two
of the three are masked on the kernel's command line. The times are systemd's own, from
InactiveExitTimestampMonotonic to ActiveEnterTimestampMonotonic of the unit.

Files are read cold, as they are at boot: three quarters of immud's time go into the start of the
interpreter and the imports, before its first own line.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.benchmarks.figures import Figure, column, in_turn
from tests.support.container import Container
from tests.support.disk import Disk
from tests.support.machines import adopted
from tests.support.process import HarnessError, run
from tests.support.stages import announce

RUNS = 21
_UNITS = "/etc/systemd/system"
_NAMES = {"immud": "immud.service", "mount(8)": "bench-mount.service", "C": "bench-static.service"}
_STATIC = "/usr/lib/bench-static"

# What an administrator would write: mount(8) makes the bind and remounts it read-only in one go.
_MOUNT = {
    "Type": ["oneshot"],
    "RemainAfterExit": ["yes"],
    "ExecStart": [
        "/usr/bin/mount -o bind,ro /usr /usr",
        "/usr/bin/mount -o bind /etc /etc",
        "/usr/bin/mount -o bind /var /var",
    ],
}
_PROGRAM = {"Type": ["notify"], "ExecStart": [_STATIC]}


def measure(runs: int = RUNS) -> list[Figure]:
    """`boot.ready_vs_mount8` and `boot.ready_vs_c`."""
    with Container(adopted()) as machine:
        _prepare(machine.disk)
        _check(machine)
        sides = {name: _timer(machine, name) for name in _NAMES}
        taken = in_turn(sides, runs, lambda line: announce(f"boot, ms {line}"))
    samples = column(taken, "ready")
    what = "unit start to READY=1, in a container"
    facts = {"runs": runs, "measured": "boots of one adopted Debian 13 disk, in turn"}
    return [
        Figure("boot.ready_vs_mount8", what, samples, "immud", "mount(8)", "ms", 1.0, facts),
        Figure("boot.ready_vs_c", what, samples, "immud", "C", "ms", 2.5, facts),
    ]


def _prepare(disk: Disk) -> None:
    """Enable the other two units beside immud's."""
    shipped = disk.read("/usr/lib/systemd/system/immud.service")
    disk.write(f"{_UNITS}/bench-mount.service", variant(shipped, _MOUNT))
    disk.write(f"{_UNITS}/bench-static.service", variant(shipped, _PROGRAM))
    _compile(disk)
    disk.run("systemctl", "enable", "bench-mount.service", "bench-static.service")


def variant(shipped: str, settings: dict[str, list[str]]) -> str:
    """The shipped unit with `settings` instead of its Type=, ExecStart= and what needs a daemon."""
    dropped = (
        *settings,
        "NotifyAccess",
        "Restart",
        "RestartSec",
        "RestartMode",
        "WatchdogSec",
        "Alias",
    )
    kept = [line for line in shipped.splitlines() if line.partition("=")[0] not in dropped]
    at = kept.index("[Service]") + 1
    kept[at:at] = [f"{name}={value}" for name, values in settings.items() for value in values]
    return "\n".join(kept) + "\n"


def _compile(disk: Disk) -> None:
    """Build the C program with this machine's compiler and put it on the disk."""
    source = Path(__file__).with_name("static.c")
    binary = disk.path.parent / "static"
    run("cc", "-O2", "-Wall", "-static", "-o", str(binary), str(source))
    disk.write(_STATIC, binary.read_bytes(), 0o755)


def _boot(machine: Container, name: str) -> None:
    """Boot with one of the units, the other two masked."""
    masks = " ".join(f"systemd.mask={unit}" for other, unit in _NAMES.items() if other != name)
    machine.boot(kernel=masks)


def _check(machine: Container) -> None:
    """That each side really does what it is timed for."""
    for name in _NAMES:
        _boot(machine, name)
        for where, how in (("/usr", "ro"), ("/etc", "rw"), ("/var", "rw")):
            found = machine.mounts(where)
            if not found or found[-1][1].split(",")[0] != how:
                raise HarnessError(f"{name} left {where} as {found}, not {how}")
        machine.poweroff()


def _timer(machine: Container, name: str) -> Callable[[], Mapping[str, float]]:
    def once() -> Mapping[str, float]:
        _boot(machine, name)
        taken = unit_ms(machine, _NAMES[name])
        machine.poweroff()
        return {"ready": taken}

    return once


def unit_ms(machine: Container, unit: str) -> float:
    """Milliseconds from the unit's start to its being active, by systemd's own clock."""
    shown = machine.run(
        *("systemctl", "show", unit),
        *("-p", "InactiveExitTimestampMonotonic", "-p", "ActiveEnterTimestampMonotonic"),
    ).stdout
    times = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", shown)}
    began, ready = times["InactiveExitTimestampMonotonic"], times["ActiveEnterTimestampMonotonic"]
    if not 0 < began < ready:
        raise HarnessError(f"{unit} did not start in this boot: {shown}")
    return (ready - began) / 1000
