"""The power goes at moments of chance: a sample of what tests/long does three hundred times."""

from pathlib import Path

import pytest

from tests.support.power import SEED, cut_at_random


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_a_few_cuts(tmp_path: Path, fstype: str) -> None:
    assert sum(cut_at_random(tmp_path, fstype, count=8, seed=SEED).values()) == 8


def test_a_few_cuts_while_homes_are_copied(tmp_path: Path) -> None:
    assert sum(cut_at_random(tmp_path, "ext4", count=6, seed=SEED, var="xfs").values()) == 6
