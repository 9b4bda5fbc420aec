"""Labels with every byte value, as libblkid hands them to udev and udev to us."""

import os
import subprocess
from pathlib import Path

from immud.cli.render import visible
from immud.watch.devices import Device, describe

# What fits a LUKS2 header, which ends a label with a zero byte.
LENGTH = 47
EVERY_BYTE = bytes(range(1, 256))
LABELS = (
    *(EVERY_BYTE[at : at + LENGTH] for at in range(0, len(EVERY_BYTE), LENGTH)),
    "Käse 🧀 \N{RIGHT-TO-LEFT OVERRIDE}moc".encode(),
    b"\x1b[2J\x1b]0;title\x07",
    b"\\x00\\x1b \\\\x41",
    b"\xf0\x9f\xa7",
    b"\xed\xa0\x80",
)


def probed(image: str) -> Device:
    """The device as it would be in udev's database: its builtin blkid is this library."""
    argv = ["blkid", "--probe", "--output", "udev", image]
    said = subprocess.run(argv, check=True, capture_output=True).stdout
    # libudev hands the database's bytes to Python as UTF-8.
    pairs = (line.partition("=") for line in said.decode("utf-8").split("\n") if line)
    return describe("/devices/x", {"DEVNAME": "/dev/x"} | {key: value for key, _, value in pairs})


def test_every_byte_of_a_label_arrives_and_harms_nobody(tmp_path: Path) -> None:
    image = str(tmp_path / "image")
    Path(image).touch()
    os.truncate(image, 32 << 20)
    make = ["cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2"]
    make += ["--pbkdf-force-iterations", "1000", "--key-file", "-", image]
    subprocess.run(make, check=True, input=b"x")
    for label in LABELS:
        subprocess.run(
            [b"cryptsetup", b"config", b"--label", label, os.fsencode(image)], check=True
        )
        device = probed(image)
        assert device.fs_type == "crypto_LUKS"
        text = label.decode(errors="replace")
        # libblkid takes white space off the end; all else arrives.
        assert device.label == text.rstrip(), label
        # What goes on the bus is valid UTF-8 without a zero byte, and a terminal does nothing.
        assert "\0" not in device.label
        device.label.encode()
        assert visible(device.label).isprintable()
