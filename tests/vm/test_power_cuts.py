"""The power goes while somebody works, and the disk loses what was not flushed.

A sample of what tests/long does thirty times, with fewer boots.
"""

import pytest

from tests.support.cuts import Cut
from tests.support.drive import Drive
from tests.support.image import Image
from tests.support.layout import complaints
from tests.support.lossy_vm import ROOT, LossyVM
from tests.support.vm import booted
from tests.vm.test_boot import immutable, problems

SEED = "2104"


@pytest.mark.parametrize("work", ["adopt", "upgrade"])
def test_cut_off_while_it_changes_the_system(
    tomb_image: Image, home_drive: Drive, work: str
) -> None:
    with LossyVM(booted(tomb_image, "tomb-trixie"), SEED) as machine:
        machine.restore()
        cut = Cut(machine, home_drive, SEED)
        cut.during(work)
        assert machine.lost[0][ROOT]["lost"]
        with cut.container() as container:
            cut.look_at(container)
            cut.mend(container)
            container.reboot()
            assert {code for code, _ in problems(container)} <= {"no-udev"}
            assert container.system_state() == "running"
            assert complaints(container) == []


def test_cut_off_while_a_tomb_opens(tomb_image: Image, home_drive: Drive) -> None:
    with LossyVM(booted(tomb_image, "tomb-trixie"), SEED) as machine:
        machine.restore()
        cut = Cut(machine, home_drive, SEED)
        cut.during("tomb")
        machine.boot_to_prompt()
        cut.look_at(machine)
        immutable(machine)
        cut.tomb_opens()
