"""Three hundred power cuts at moments of chance, on each file system."""

from pathlib import Path

import pytest

from tests.support.filesystems import FILESYSTEMS
from tests.support.power import SEED, cut_at_random

CUTS = 300


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
