"""How much later a machine is up: immud beside native .mount units, in a virtual machine.

Both sides are the same adopted disk, which has booted once since. On one immud is enabled; on the
other it is not, and three .mount units, as one would write them by hand, make the same binds of
/usr (read-only), /etc and /var. Every sample is a boot of a fresh overlay. The times are those at
which systemd reached the target, counted from its own start.
"""

from collections.abc import Callable, Mapping

from tests.benchmarks.figures import Figure, column, in_turn
from tests.support import qemu
from tests.support.container import Container, prepared
from tests.support.image import Image
from tests.support.machines import adopted
from tests.support.process import HarnessError
from tests.support.stages import announce
from tests.support.vm import VM

RUNS = 5
TARGETS = {"localfs": "local-fs.target", "multiuser": "multi-user.target"}

_UNIT = """[Unit]
Description={where} as a bind mount
[Mount]
What={where}
Where={where}
Type=none
Options={options}
[Install]
WantedBy=local-fs.target
"""
_BINDS = {"/usr": "bind,ro", "/etc": "bind", "/var": "bind"}


def measure(runs: int = RUNS) -> list[Figure]:
    """`boot.localfs_vs_native` and `boot.multiuser_vs_native`."""
    images = {"immud": immutable(), "native": native()}
    sides = {name: _timer(image) for name, image in images.items()}
    taken = in_turn(sides, runs, lambda line: announce(f"targets reached, ms {line}"))
    facts = {
        "runs": runs,
        "accelerator": accelerator(images["immud"]),
        "measured": "boots of fresh overlays, in turn",
    }
    return [
        Figure(
            f"boot.{name}_vs_native",
            f"start of systemd to {target}, in a virtual machine",
            column(taken, name),
            *("immud", "native", "ms", 1.05),
            facts,
        )
        for name, target in TARGETS.items()
    ]


def immutable() -> Image:
    """The adopted machine after a boot: what is done once after a change of /usr
    (ConditionNeedsUpdate=, ldconfig.service and its like) has been done."""
    return prepared(adopted(), "settled-trixie", "booting once more", _settle)


def native() -> Image:
    """The same with immud disabled and its three mounts made by .mount units."""
    return prepared(immutable(), "native-trixie", "replacing immud by mount units", _replace)


def _settle(container: Container) -> None:
    if (state := container.system_state()) != "running":
        raise HarnessError(f"the adopted machine is {state}")


def _replace(container: Container) -> None:
    container.run("immud", "disable")
    for where, options in _BINDS.items():
        unit = f"/etc/systemd/system/{where[1:]}.mount"
        text = _UNIT.format(where=where, options=options)
        container.run("sh", "-c", f"cat >{unit}", input=text)
        container.run("systemctl", "enable", f"{where[1:]}.mount")


def _timer(image: Image) -> Callable[[], Mapping[str, float]]:
    def once() -> Mapping[str, float]:
        with VM(image) as machine:
            machine.boot()
            found = machine.shell("findmnt -n -o OPTIONS /usr; findmnt -n /etc; findmnt -n /var")
            if len(found.splitlines()) != 3 or not found.startswith("ro,"):
                raise HarnessError(f"the mounts are not those that are to be timed:\n{found}")
            return {name: reached_ms(machine, target) for name, target in TARGETS.items()}

    return once


def reached_ms(machine: VM, target: str) -> float:
    """Milliseconds from PID 1's start in the root file system until it reached `target`."""
    shown = machine.shell(
        "systemctl show --value -p UserspaceTimestampMonotonic;"
        'systemctl show --value -p ActiveEnterTimestampMonotonic "$1"',
        target,
    )
    began, reached = map(int, shown.split())
    if not 0 < began < reached:
        raise HarnessError(f"{target} was not reached in this boot: {shown}")
    return (reached - began) / 1000


def accelerator(image: Image) -> str:
    """`KVM` or `TCG`: how QEMU runs the guest on this machine."""
    return "KVM" if qemu.accelerator(image.kernel, image.initrd) == qemu.KVM else "TCG"
