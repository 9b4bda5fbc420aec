"""Upgrades and downgrades cut off at moments of chance, one after the other on one machine."""

import random

from tests.support.container import Container
from tests.support.layout import complaints
from tests.support.upgrades import Upgrades, true_status

SEED = 411
CUTS = 60


def test_sixty_cuts(adopted_container: Container) -> None:
    upgrades = Upgrades(adopted_container)
    chance = random.Random(SEED)  # noqa: S311 - to be the same in each run
    for number in range(CUTS):
        call = chance.choice(upgrades.calls)
        print(number, call)
        upgrades.cut_off(call)
        adopted_container.boot()
        assert true_status(adopted_container) == "running"
        assert complaints(adopted_container) == []
        assert adopted_container.failed_units() == []
        adopted_container.poweroff()
