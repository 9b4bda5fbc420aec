"""Fifty times in a row, with and without somebody holding the tomb, in an order of the seed's."""

import random

from tests.support.drive import Drive
from tests.support.tomb import assert_no_residue, hold, wait_for
from tests.support.vm import VM

YANKS = 50
SEED = 20


def test_fifty_yanks(vm: VM, home_drive: Drive) -> None:
    chance = random.Random(SEED)  # noqa: S311 - to be the same in each run
    for _ in range(YANKS):
        vm.plug(home_drive)
        held = chance.random() < 0.5
        # Half of the others are pulled while they are being opened.
        if held or chance.random() < 0.5:
            wait_for(vm, "open")
        if held:
            hold(vm)
        vm.yank(home_drive)
        wait_for(vm, "absent")
        assert_no_residue(vm)
        if held:
            vm.run("systemctl", "stop", "private")
