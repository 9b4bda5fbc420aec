"""Upgrades, downgrades and those cut off: no boot is without a usable plan, and all can be mended.

The system between two versions may work or not; it always boots to a login prompt, says what is
so, and dpkg finishes what it began.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from immud.early.plan import decode
from tests.boot.test_package import lease, sound, status
from tests.support import image, machines
from tests.support.container import Container
from tests.support.layout import complaints
from tests.support.upgrades import DEB, Upgrades, another, true_status
from tests.unit.test_plan_format import closed

PLAN = "/etc/immud/boot.plan"
VENDOR = "usr/lib/immud/immud.toml"


@pytest.fixture(params=("trixie", "bookworm"))
def machine(request: pytest.FixtureRequest) -> Iterator[Container]:
    """Adopted and enabled, off."""
    with Container(machines.adopted(image.installed(request.param))) as container:
        yield container


def problems(machine: Container) -> str:
    return machine.run("immud", "status").stdout


def origin(machine: Container) -> str:
    """Where the plan of this boot came from."""
    return machine.run("sed", "-n", "s/^plan\t//p", "/run/immud/facts").stdout.strip()


def vendor(text: str) -> bytes:
    """A version with other defaults."""

    def change(tree: Path) -> None:
        file = tree / VENDOR
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return another("9.", change)


def install(machine: Container, package: bytes) -> str:
    machine.run("tee", DEB, input=package)
    return lease(machine, "dpkg", "-i", DEB)


def test_the_plan_is_that_of_the_version_installed(machine: Container) -> None:
    machine.boot()
    # an older one, beside the notes of a newer one
    install(machine, another("0~"))
    assert machine.run("dpkg-query", "-W", "-f", "${Version}", "immud").stdout.startswith("0~")
    assert true_status(machine) == "running"
    newer = machine.run("cat", PLAN).stdout.rpartition("end\t")[0]
    newer = newer.replace("immud-plan\t1\n", "immud-plan\t2\n") + "verity\tsha256\n"
    machine.run("tee", "/run/immud/plan", PLAN, input=closed(newer))
    machine.run("systemctl", "restart", "immud")
    assert true_status(machine) == "degraded"
    assert "nobody watches it" in problems(machine).replace("\n", " ")
    machine.reboot()
    assert (origin(machine), true_status(machine)) == ("fresh", "running")
    assert "written by another version" in " ".join(problems(machine).split())
    assert complaints(machine) == []

    # one with other defaults: the next boot need not make a plan
    install(machine, vendor('[links]\n"/srv" = false\n'))
    plan = machine.run("cat", PLAN).stdout
    assert "/srv" not in [row.path for row in decode(plan.encode()).rows]
    # one that is broken leaves that as it is, and is said to
    machine.run("tee", DEB, input=vendor("[links\n"))
    told = machine.run("immud", "unlock", "--", "dpkg", "-i", DEB)
    assert "the layout is the one of the last 'immud enable'" in told.stderr
    assert machine.run("cat", PLAN).stdout == plan
    assert (status(machine), sound(machine)) == ("installed", True)
    machine.reboot()
    assert (origin(machine), true_status(machine)) == ("last-good", "degraded")
    assert complaints(machine) == []
    assert machine.failed_units() == []


def test_cut_off_it_boots_says_so_and_is_mended(adopted_container: Container) -> None:
    upgrades = Upgrades(adopted_container)
    renames = [call for call in upgrades.calls if call[0] == "rename"]
    last = upgrades.calls.index(renames[-1])
    postinst = [call for call in upgrades.calls[:last] if call[0] == "wait4"][-1]
    # phase 1 of two versions; a daemon that is whole, and commands that are not; all is new
    upgrades.cut_off(next(c for c in renames if "/early/main.py" in c[2]))
    said = upgrades.cut_off(next(c for c in renames if "/lease/begin.py" in c[2]))
    assert "immud: an upgrade of it was cut off" in said
    upgrades.cut_off(postinst)
    machine = adopted_container
    machine.boot()
    assert true_status(machine) == "running"
    assert complaints(machine) == []
    assert machine.failed_units() == []
