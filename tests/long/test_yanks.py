"""Two hundred times in a row, with and without somebody writing to the tomb."""

from tests.support.drive import Drive
from tests.support.vm import VM
from tests.support.yanks import yanks


def test_two_hundred_yanks(vm: VM, home_drive: Drive) -> None:
    yanks(vm, home_drive, 200)
