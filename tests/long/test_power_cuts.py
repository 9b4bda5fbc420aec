"""Three hundred power cuts at moments of chance, on each file system; thirty in the VM."""

from pathlib import Path

import pytest

from tests.support import stages
from tests.support.cuts import WORKS, Cut
from tests.support.drive import Drive
from tests.support.filesystems import FILESYSTEMS
from tests.support.image import Image
from tests.support.lossy_vm import LossyVM
from tests.support.power import SEED, cut_at_random
from tests.support.vm import booted
from tests.vm.test_boot import immutable

CUTS = 300
VM_CUTS = 30


@pytest.mark.parametrize("fstype", FILESYSTEMS)
def test_three_hundred_cuts(tmp_path: Path, fstype: str) -> None:
    done = cut_at_random(tmp_path, fstype, count=CUTS, seed=SEED + 1)
    # each kind of work was cut off often, and at its beginning, middle and end
    assert min(done.values()) > CUTS / 10, done


@pytest.mark.parametrize("pair", [("ext4", "xfs"), ("btrfs", "ext4")], ids="-".join)
def test_a_hundred_cuts_while_homes_are_copied(tmp_path: Path, pair: tuple[str, str]) -> None:
    fstype, var = pair
    done = cut_at_random(tmp_path, fstype, count=100, seed=SEED + 2, var=var)
    assert min(done.values()) > 100 / 5, done


@pytest.mark.parametrize("number", range(VM_CUTS))
def test_a_cut_of_thirty_in_the_vm(number: int, tomb_image: Image, home_drive: Drive) -> None:
    work = sorted(WORKS)[number % len(WORKS)]
    seed = f"{SEED} {number}"
    with LossyVM(booted(tomb_image, "tomb-trixie"), seed) as machine:
        machine.restore()
        cut = Cut(machine, home_drive, seed)
        cut.during(work)
        stages.announce(f"# seed {seed}: {machine.story[-1]}")
        machine.boot_to_prompt()
        cut.look_at(machine)
        cut.mend(machine)
        machine.reboot()
        immutable(machine)
        cut.tomb_opens()
