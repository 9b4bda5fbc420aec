"""Every call of phase 1 with every errno it is likely to meet, and cut off before every one."""

import errno
from pathlib import Path

import pytest

from tests.kernel.test_early_faults import cut_off_before, every_call_fails
from tests.support.stock import stock_image

# What path lookup, mounting, writing and running out of something end with.
ERRORS = (
    *(errno.EACCES, errno.EBUSY, errno.EEXIST, errno.EINVAL, errno.EIO, errno.ELOOP),
    *(errno.EMFILE, errno.ENODEV, errno.ENOENT, errno.ENOMEM, errno.ENOSPC, errno.ENOSYS),
    *(errno.ENOTDIR, errno.EPERM, errno.EROFS, errno.ESTALE, errno.EUCLEAN, errno.EXDEV),
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stock_image(tmp_path_factory.mktemp("stock"), size="16M")


@pytest.mark.parametrize("number", ERRORS, ids=[errno.errorcode[n] for n in ERRORS])
def test_every_call_with_every_errno(image: Path, tmp_path: Path, number: int) -> None:
    every_call_fails(image, tmp_path, number, 1, 1)


def test_cut_off_before_every_call(image: Path, tmp_path: Path) -> None:
    cut_off_before(image, tmp_path, 1)
