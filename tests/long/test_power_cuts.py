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
