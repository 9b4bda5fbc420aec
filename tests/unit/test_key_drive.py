"""Which drive a tomb in a file is on, and which one its key is on."""

from dataclasses import replace

import pytest

from immud.model import TombConfig
from immud.tomb.drives.match import KeyPlace, answers, key_drives, key_place, waits
from immud.watch.devices import Device

STICK = Device(
    "/devices/usb/block/sda/sda1", "/dev/sda1", "8:1", diskseq="1",
    fs_type="vfat", uuid="1A2B-3C4D", label="STICK", partuuid="aa-01", partlabel="my part",
)  # fmt: skip
FILE = TombConfig("home", uuid="1a2b-3c4d", file="secret.tomb", key="drive:secret.key")


@pytest.mark.parametrize("fs_type", ["vfat", "exfat", "ext4", "xfs", "f2fs"])
def test_a_file_is_on_a_file_system(fs_type: str) -> None:
    assert answers(FILE, replace(STICK, fs_type=fs_type))
    assert not answers(replace(FILE, file=""), replace(STICK, fs_type=fs_type))


@pytest.mark.parametrize("fs_type", ["crypto_LUKS", "btrfs", "ntfs", "squashfs", "swap", ""])
def test_a_file_is_on_no_other(fs_type: str) -> None:
    assert not answers(FILE, replace(STICK, fs_type=fs_type))


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("ask", None),
        ("/etc/immud/keys/x", None),
        ("drive:a:/b.key", KeyPlace("drive", "", "a:/b.key")),
        ("UUID=1A2B-3C4D:/a/b", KeyPlace("UUID", "1A2B-3C4D", "a/b")),
        ("LABEL=my keys:/k", KeyPlace("LABEL", "my keys", "k")),
    ],
)
def test_where_a_key_is(key: str, place: KeyPlace | None) -> None:
    assert key_place(replace(FILE, key=key)) == place


@pytest.mark.parametrize(
    "key", ["UUID=1a2b-3c4d:/k", "LABEL=STICK:/k", "PARTUUID=AA-01:/k", "PARTLABEL=my part:/k"]
)
def test_its_drive_is_found(key: str) -> None:
    config = replace(FILE, key=key)
    assert key_drives(config, (STICK,)) == (STICK,)
    assert waits(config, (STICK,)) == ""
    assert key_drives(config, (replace(STICK, fs_type="crypto_LUKS"),)) == ()
    assert key.partition(":")[0] in waits(config, ())
    other = replace(STICK, devpath="/devices/usb/block/sdb", devnode="/dev/sdb")
    assert "/dev/sda1, /dev/sdb all answer" in waits(config, (other, STICK))


def test_a_key_on_the_drive_itself_or_here_is_not_waited_for() -> None:
    for key in ("ask", "/etc/immud/keys/x", "drive:k"):
        assert waits(replace(FILE, key=key), ()) == ""
        assert key_drives(replace(FILE, key=key), (STICK,)) == ()
