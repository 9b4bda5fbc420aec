"""The power goes in a virtual machine while somebody works, on disks that lose what was not
flushed; and what has to be so afterwards.

    cut = Cut(machine, drive, seed)
    cut.during("adopt")
    cut.come_up()
    cut.mend()
"""

import json
import random
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.support import image
from tests.support.drive import CONTENT, LETTER, Drive
from tests.support.lossy_vm import ROOT, LossyVM
from tests.support.process import run
from tests.support.tomb import wait_for

NEXT = "/var/tmp/next.deb"

# What a person does in a tomb that has opened.
USE = """
until mountpoint -q /var/home && [ -e /home/alice ]; do sleep 0.1; done
for n in 1 2 3; do echo "$n" >>/home/alice/diary; sync /home/alice/diary; done
"""


class Work(NamedTuple):
    """`command` is cut off at one of `writes` writes: about as many as it takes on `disk`.

    `before` brings an immutable machine to where it begins.
    """

    command: str
    writes: int
    before: str = ":"
    plugged: bool = False


WORKS = {
    "adopt": Work("immud adopt", 160, before="immud release"),
    "release": Work("immud release", 160),
    "enable": Work("immud enable", 30, before="immud disable"),
    "disable": Work("immud disable", 30),
    "upgrade": Work(f"dpkg -i {NEXT}", 1000),
    "tomb": Work(USE, 20, plugged=True),
}

# What a person would do who found the machine so: what dpkg asks for, and the three words of
# this package.
MEND = f"""
dpkg --configure -a || :
[ -z "$(dpkg --audit)" ] || dpkg -i {NEXT}
dpkg --audit
immud adopt
immud enable
"""

_DATA = """
for row in /home /root /opt /srv /usr/local /mnt; do
    find "$row/." -type f -exec sha256sum {} +
done
"""


class Cut:
    """Power cuts of one machine, from `seed`; `drive` is its tomb.

    The machine is running and immutable.
    """

    def __init__(self, machine: LossyVM, drive: Drive, seed: str) -> None:
        self.machine, self.drive = machine, drive
        self._chance = random.Random(seed)  # noqa: S311 - to be the same in each run
        self._data: set[str] = set()
        self.told: list[str] = []
        machine.run("tee", NEXT, input=next_version())

    def during(self, name: str) -> None:
        """Begin that work, and take the power away."""
        work = WORKS[name]
        letter = f"/home/alice/letter-{len(self.told)}"
        self.machine.shell(f"{work.before}; echo mine >{letter}; sync", timeout=120)
        self._data = self._people_have()
        assert any(line.endswith(f"/letter-{len(self.told)}") for line in self._data)
        writes = self._chance.randint(1, work.writes)
        if work.plugged:
            self.machine.plug(self.drive)
        self.machine.cut_after(writes, self.drive.serial if work.plugged else ROOT)
        cut = self.machine.cut(self.machine.start("sh", "-ec", work.command))
        when = f"after {writes} writes of" if cut else "at the end of"
        self.told.append(f"cut {when} {name}: {self.machine.lost[-1]}")

    def _people_have(self) -> set[str]:
        return set(self.machine.shell(_DATA).splitlines())

    def come_up(self) -> None:
        """Boot: there is a prompt, the status is true, and everybody has what they had."""
        self.machine.boot_to_prompt()
        true_status(self.machine)
        assert self._data - self._people_have() == set()

    def mend(self) -> None:
        """Do what a person would do next."""
        self.machine.shell(MEND, timeout=240)

    def tomb_opens(self) -> None:
        """The tomb has what it had, too, and its file system is sound."""
        self.machine.plug(self.drive)
        wait_for(self.machine, "open")
        assert self.machine.run("cat", f"/home/{LETTER}").stdout == CONTENT[LETTER]
        diary = self.machine.run("cat", "/home/alice/diary", check=False).stdout
        assert "1\n2\n3\n".startswith(diary)
        true_status(self.machine)


def true_status(machine: LossyVM) -> None:
    """What `immud status` says is what the kernel says."""
    listed = machine.run("findmnt", "--json", "--list", "--output", "TARGET,OPTIONS,SOURCE").stdout
    mounts = {mount["target"]: mount for mount in json.loads(listed)["filesystems"]}

    def frozen(path: str) -> bool:
        while path not in mounts:
            path = str(Path(path).parent)
        return "ro" in mounts[path]["options"].split(",")

    said = machine.run("immud", "status", "--json", check=False)
    if said.status:
        # It does not run: then nothing is as it would make it.
        assert said.status == 3, said
        assert machine.run("systemctl", "is-active", "immud", check=False).stdout != "active\n"
        assert not frozen("/usr")
        assert not frozen("/")
        return
    told = json.loads(said.stdout)
    assert told["usr_read_only"] == frozen("/usr")
    assert told["root_read_only"] == frozen("/")
    for mount in told["mounts"]:
        assert (mount["state"] != "missing") == (mount["where"] in mounts), mount
        assert mount["read_only"] == frozen(mount["where"]), mount
    for link in told["links"]:
        leads = machine.run("readlink", link["path"], check=False).stdout.strip()
        assert (link["state"] == "adopted") == (leads == link["target"]), (link, leads)
    for tomb in told["tombs"]:
        here = mounts.get(tomb["mount_point"], {"source": ""})["source"]
        assert (tomb["state"] == "open") == here.startswith("/dev/mapper/"), tomb


def next_version() -> bytes:
    """The package of this checkout as its next version."""
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place) / "tree"
        run("dpkg-deb", "-R", str(image.package()), str(tree))
        control = tree / "DEBIAN/control"
        control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 9."))
        run("dpkg-deb", "-b", "--root-owner-group", str(tree), f"{tree}.deb")
        return Path(f"{tree}.deb").read_bytes()
