"""Which partitions systemd would mount because of their type."""

import json

import pytest

from immud.adopt.facts import Partition
from immud.adopt.gpt import TYPES, _found

HOME, SRV = TYPES
THIRD = ("/dev/nvme0n1p3", "/dev/nvme0n1", 3)
ROOT = {
    "path": "/dev/nvme0n1p2", "pkname": "nvme0n1", "partn": 2, "parttype": "4f68bce3-",
    "partflags": None, "mountpoints": ["/"],
}  # fmt: skip


def one(**values: object) -> dict[str, object]:
    return ROOT | {"path": "/dev/nvme0n1p3", "partn": 3, "mountpoints": [None]} | values


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (one(parttype=HOME), Partition(*THIRD, "/home", mounted=False)),
        (one(parttype=HOME, mountpoints=["/home"]), Partition(*THIRD, "/home")),
        (one(parttype=SRV, partn=None), Partition(*THIRD, "/srv", mounted=False)),
        (one(parttype=HOME, partflags="0x8000000000000000"), None),
        (one(parttype=HOME, partflags="0x1"), Partition(*THIRD, mounted=False)),
        (one(parttype=HOME, pkname="sdb"), None),
        (one(parttype="0fc63daf-8483-4772-8e79-3d69d8477de4"), None),
        (one(parttype=None), None),
    ],
)
def test_partitions(device: dict[str, object], expected: Partition | None) -> None:
    listed = json.dumps({"blockdevices": [ROOT, device]})
    assert list(_found(listed)) == ([expected] if expected else [])


def test_what_lsblk_does_not_say_is_none() -> None:
    assert list(_found(b"")) == list(_found(b"{}")) == []
