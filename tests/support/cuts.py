"""The power goes in a virtual machine while somebody works, on disks that lose what was not
flushed; and what has to be so afterwards.

    cut = Cut(machine, drive, seed)
    cut.during("adopt")
    machine.boot_to_prompt()
    cut.look_at(machine)
    cut.mend(machine)

A boot in a machine takes half a minute: `Cut.container` is the same disk in a container.
"""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.container import Container
from tests.support.disk import Disk
from tests.support.drive import CONTENT, LETTER, Drive
from tests.support.lossy_vm import ROOT, LossyVM
from tests.support.tomb import wait_for
from tests.support.upgrades import DEB, another, unfit

# What a person does in a tomb that has opened.
USE = """
until mountpoint -q /var/home && [ -e /home/alice ]; do sleep 0.1; done
for n in 1 2 3; do echo "$n" >>/home/alice/diary; sync /home/alice/diary; done
"""

# What a person would do who found the machine so.
_CONFIGURE = f"""
dpkg --configure -a || :
[ -z "$(dpkg --audit)" ] || dpkg -i {DEB}
[ -z "$(dpkg --audit)" ]
"""
_ENABLED = "systemctl is-enabled immud && test -e /etc/immud/boot.plan"
_DISABLED = "! systemctl is-enabled immud && ! test -e /etc/immud/boot.plan"


class Work(NamedTuple):
    """`command` is cut off at one of `writes` writes to the disk: about as many as it takes.

    Once it has come to its end, `done` is so. `mend` makes an immutable machine of what was cut
    off, and `before` brings one to where the work begins. With `plugged` it is the tomb that
    it is about, and its disk.
    """

    command: str
    writes: int
    done: str
    mend: str = ":"
    before: str = ":"
    plugged: bool = False


WORKS = {
    "adopt": Work(
        "immud adopt", 45, "test -L /home && test -L /usr/local", "immud adopt", "immud release"
    ),
    "release": Work("immud release", 36, "! test -L /home && ! test -L /usr/local", "immud adopt"),
    "enable": Work("immud enable", 90, _ENABLED, "immud enable", "immud disable"),
    "disable": Work("immud disable", 80, _DISABLED, "immud enable"),
    "upgrade": Work(f"dpkg -i {DEB}", 400, "dpkg -s immud | grep '^Version: 9[.]'", _CONFIGURE),
    "tomb": Work(USE, 15, "true", plugged=True),
}

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
        self._done = self._mend = "true"
        put = ("sh", "-c", f"cat >{DEB}")
        machine.run(*put, input=another("9.", unfit))

    def during(self, name: str) -> None:
        """Begin that work, and take the power away."""
        work = WORKS[name]
        letter = f"/home/alice/letter-{len(self.machine.story)}"
        self.machine.shell(f"{work.before}; echo mine >{letter}; sync", timeout=120)
        self._data = people_have(self.machine)
        assert any(line.endswith(f"/letter-{len(self.machine.story)}") for line in self._data)
        writes = self._chance.randint(1, work.writes)
        if work.plugged:
            self.machine.plug(self.drive)
        self.machine.cut_after(writes, self.drive.serial if work.plugged else ROOT)
        cut = self.machine.cut(self.machine.start("sh", "-ec", work.command))
        self._done, self._mend = "true" if cut else work.done, work.mend
        when = f"after {writes} writes of" if cut else "at the end of"
        self.machine.story.append(f"cut {when} {name}: {self.machine.lost[-1]}")

    @contextmanager
    def container(self) -> Iterator[Container]:
        """A copy of the disk as the cut has left it, booted to where one can log in."""
        with Container(Disk(self.machine.disk)) as booted:
            booted.boot()
            assert booted.succeeds("systemctl", "is-active", "--quiet", "console-getty")
            yield booted

    def look_at(self, machine: LossyVM | Container) -> None:
        """What has been booted has a true status, and everybody has what they had."""
        true_status(machine)
        assert self._data - people_have(machine) == set()
        assert machine.succeeds("sh", "-c", self._done)

    def mend(self, machine: LossyVM | Container) -> None:
        """Do what a person would do next."""
        machine.run("sh", "-ec", self._mend, timeout=240)

    def tomb_opens(self) -> None:
        """The tomb has what it had, too, and its file system is sound."""
        self.machine.plug(self.drive)
        wait_for(self.machine, "open")
        assert self.machine.run("cat", f"/home/{LETTER}").stdout == CONTENT[LETTER]
        diary = self.machine.run("cat", "/home/alice/diary", check=False).stdout
        assert "1\n2\n3\n".startswith(diary)
        true_status(self.machine)


def people_have(machine: LossyVM | Container) -> set[str]:
    """The sum and the name of each file that is somebody's."""
    return set(machine.run("sh", "-ec", _DATA).stdout.splitlines())


def true_status(machine: LossyVM | Container) -> None:
    """What `immud status` says is what the kernel says."""
    listed = machine.run("findmnt", "--json", "--list", "--output", "TARGET,OPTIONS,SOURCE").stdout
    mounts = {mount["target"]: mount for mount in json.loads(listed)["filesystems"]}

    def frozen(path: str) -> bool:
        while path not in mounts:
            path = str(Path(path).parent)
        return "ro" in mounts[path]["options"].split(",")

    said = machine.run("immud", "status", "--json", check=False)
    if said.status:
        assert not machine.succeeds("systemctl", "is-active", "--quiet", "immud")
        assert said.status in (1, 3), said
        assert "immud" in said.stderr, said
        assert "Traceback" not in said.stderr, said
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
