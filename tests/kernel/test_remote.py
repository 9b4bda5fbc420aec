"""Whether a drive has ended, asked of real ones."""

import os
from pathlib import Path

from immud.tomb.drives import drive
from immud.tomb.drives.remote import has_ended
from tests.kernel.test_tomb import loop_device
from tests.support.namespaces import in_namespace
from tests.support.process import run


@in_namespace
def test_a_read_tells(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    with loop_device(str(image)) as node:
        number = drive.number_of(node)
        assert not has_ended(node)
        # What is behind it is gone, and the kernel has its size as before.
        os.truncate(image, 0)
        assert has_ended(node)
        assert drive.alive(number)
        # As it leaves a reader without its card.
        run("losetup", "--set-capacity", node)
        assert not drive.alive(number)
