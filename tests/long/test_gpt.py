"""A disk whose partition for /home systemd mounts because of its type, without a line in fstab."""

import re
from dataclasses import replace
from pathlib import Path

from tests.support.disk import Disk
from tests.support.image import Image
from tests.support.layout import complaints
from tests.support.process import run
from tests.support.vm import VM
from tests.vm.test_boot import immutable

MEBI = 1 << 20
HOME = 64 * MEBI
# Discoverable Partitions Specification: the root of an x86-64 machine, and /home
TYPES = ("4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "933ac7e1-2eb4-4f13-b844-0e14e2aef915")
ROOT = "root=/dev/vda1"


def partitioned(image: Image, place: Path) -> Image:
    """`image` on the first partition of a GPT, its /home empty; the second has one."""
    root = image.disk.copy(place / "root.ext4")
    root.run("sh", "-c", "mv /home/alice /var/tmp")
    disk, home, letter = place / "gpt", place / "home.ext4", place / "home/alice/letter"
    letter.parent.mkdir(parents=True)
    letter.write_text("on a partition of its own\n")
    run("mkfs.ext4", "-q", "-d", str(place / "home"), str(home), str(HOME >> 10))
    sizes = (root.path.stat().st_size, HOME)
    with disk.open("wb") as file:
        file.truncate(sum(sizes) + 2 * MEBI)
    lines = [f"size={size >> 9}, type={kind}\n" for size, kind in zip(sizes, TYPES, strict=True)]
    run("sfdisk", "--quiet", str(disk), input="".join(["label: gpt\n", *lines]))
    at = 1
    for size, source in zip(sizes, (root.path, home), strict=True):
        onto = (f"if={source}", f"of={disk}", "bs=1M", f"seek={at}")
        run("dd", "status=none", "conv=notrunc,sparse", *onto, timeout=300)
        at += size // MEBI
    return replace(image, disk=Disk(disk))


def test_it_is_refused_and_what_is_said_mends_it(installed_image: Image, tmp_path: Path) -> None:
    with VM(partitioned(installed_image, tmp_path)) as machine:
        machine.boot(append=ROOT)
        assert machine.shell("findmnt -no SOURCE /home") == "/dev/vda2\n"
        assert "gpt-home" in machine.run("immud", "doctor", "--json", check=False).stdout

        refused = machine.run("immud", "adopt", check=False)
        assert refused.status == 1
        assert machine.succeeds("mountpoint", "/home")
        said = re.search(
            r"alone: (.*?); write into /etc/fstab: (.*?); run `(.*?)`; ", refused.stderr
        )
        assert said, refused.stderr
        mend, line, reload = said.groups()
        machine.shell(f"{mend}; echo '{line}' >>/etc/fstab; {reload}; immud adopt; immud enable")

        for _ in range(2):
            assert "FAILED" not in machine.reboot(append=ROOT)
            immutable(machine)
            assert machine.system_state() == "running"
            assert machine.shell("findmnt -no SOURCE /var/home") == "/dev/vda2\n"
            read = machine.run("cat", "/home/alice/letter", user="alice").stdout
            assert read == "on a partition of its own\n"
            assert complaints(machine) == []
