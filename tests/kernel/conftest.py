"""What the tests on real file systems share."""

from pathlib import Path

import pytest

from tests.support.filesystems import FILESYSTEMS, Machine


@pytest.fixture(params=FILESYSTEMS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(str(tmp_path), request.param)


@pytest.fixture
def ext4(tmp_path: Path) -> Machine:
    return Machine(str(tmp_path), "ext4")
