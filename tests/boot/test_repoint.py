"""A /home of its own in a booted system: mounted at /var/home from adopting on, and back."""

import re
import textwrap
from collections.abc import Iterator

import pytest

from immud.enable.fstab import EDIT_OWN
from tests.boot.test_package import NOISE, SUITES
from tests.support import image
from tests.support.container import Container
from tests.support.layout import complaints
from tests.support.upgrades import true_status

LETTER = "/home/alice/Documents/letter.txt"
LINE = "/var/lib/home.img /home  ext4  loop,nodev  0 2\n"
# Devices have no units in a container, but a file does that holds a file system.
SPLIT = """
truncate -s 32M /var/lib/home.img
mkfs.ext4 -q -F -d /home /var/lib/home.img
rm -r /home/alice
"""
UNIT = """[Unit]
Description=Homes
[Mount]
What=/var/lib/home.img
Where=/home
Type=ext4
Options=loop,nodev
[Install]
WantedBy=local-fs.target
"""


@pytest.fixture(params=SUITES)
def machine(request: pytest.FixtureRequest) -> Iterator[Container]:
    """A container with immud installed and homes on a file system that nothing mounts, off."""
    with Container(image.installed(request.param), loops=True) as container:
        container.disk.run("sh", "-ec", SPLIT)
        yield container


def mounted(machine: Container) -> list[str]:
    """Where homes are mounted, and the units systemd has for that."""
    places = [where for where, _, _ in machine.mounts() if where in ("/home", "/var/home")]
    units = machine.run("systemctl", "list-units", "--plain", "--no-legend", "*home.mount").stdout
    return [*places, *(" ".join(line.split()[:4]) for line in units.splitlines())]


def quiet(machine: Container) -> None:
    """Nobody complains, and homes are where people look for them."""
    assert machine.system_state() == "running"
    assert machine.failed_units() == []
    warnings = machine.messages("-b", "-p", "warning", "_PID=1")
    assert [text for text in warnings if not any(noise in text for noise in NOISE)] == []
    assert machine.run("cat", LETTER).stdout == "a letter\n"


AT_HOME = ["/home", "home.mount loaded active mounted"]
AT_VAR_HOME = ["/var/home", "var-home.mount loaded active mounted"]


def test_a_line_of_fstab(machine: Container) -> None:
    machine.disk.run("sh", "-c", 'printf %s "$1" >>/etc/fstab', "sh", LINE)
    machine.boot()
    assert mounted(machine) == AT_HOME
    doctor = machine.run("immud", "doctor", check=False).stdout
    assert "immud adopt /home" in doctor
    assert doctor.count("/home is a file system of its own") == 1
    machine.run("immud", "adopt")
    assert mounted(machine) == AT_VAR_HOME
    quiet(machine)
    machine.run("immud", "enable")
    assert "FAILED" not in machine.reboot()
    assert mounted(machine) == AT_VAR_HOME
    quiet(machine)
    assert true_status(machine) == "running"
    assert complaints(machine) == []

    machine.run("immud", "release")
    assert mounted(machine) == AT_HOME
    assert machine.run("tail", "-n", "1", "/etc/fstab").stdout == LINE
    quiet(machine)
    # it is the person's own right, and no finding
    assert true_status(machine) == "running"
    assert machine.run("immud", "verify").status == 0
    assert "FAILED" not in machine.reboot()
    assert mounted(machine) == AT_HOME
    quiet(machine)


def test_a_line_of_two_fstabs(machine: Container) -> None:
    """PID 1 begins with the disk's own /etc, as phase 1 does, and goes on with another."""
    machine.disk.run("sh", "-c", 'printf %s "$1" >>/etc/fstab', "sh", LINE)
    machine.boot()
    machine.run("immud", "adopt")
    machine.poweroff()
    machine.disk.write("/etc/immud/immud.toml", '[etc]\nsource = "/data/etc"\n')
    machine.disk.run("mkdir", "-p", "/data/etc")
    machine.disk.run("env", "container=chroot", "immud", "enable", "--seed")
    machine.boot()
    assert mounted(machine) == AT_VAR_HOME
    machine.run("immud", "release")
    assert "FAILED" not in machine.reboot()
    assert mounted(machine) == AT_HOME
    quiet(machine)
    machine.run("immud", "adopt")
    assert "FAILED" not in machine.reboot()
    assert mounted(machine) == AT_VAR_HOME
    quiet(machine)
    # the way to the other file that enable and doctor name
    machine.run("sh", "-c", EDIT_OWN.replace("editor /mnt/etc/fstab", "touch /mnt/etc/edited"))
    assert not machine.succeeds("test", "-e", "/etc/edited")
    assert complaints(machine) == []
    machine.poweroff()
    machine.disk.run("test", "-e", "/etc/edited")


def test_a_unit_in_two_etcs(machine: Container) -> None:
    machine.disk.write("/etc/systemd/system/home.mount", UNIT)
    machine.disk.run("systemctl", "enable", "home.mount")
    machine.disk.write("/etc/immud/immud.toml", '[etc]\nsource = "/data/etc"\n')
    machine.disk.run("mkdir", "-p", "/data/etc")
    machine.disk.run("env", "container=chroot", "immud", "enable", "--seed")
    machine.boot()
    for lines in (3, 1):
        refused = machine.run("immud", "adopt", check=False)
        told = re.findall(r"^    .*", refused.stderr, re.MULTILINE)
        assert (refused.status, len(told)) == (1, lines), refused.stderr
        machine.run("sh", "-exc", textwrap.dedent("\n".join(told)))
    machine.run("immud", "adopt")
    assert "FAILED" not in machine.reboot()
    assert mounted(machine) == AT_VAR_HOME
    quiet(machine)
    assert complaints(machine) == []


def test_a_line_behind_a_link(machine: Container) -> None:
    """systemd follows the link, and enable says where to."""
    machine.disk.run("sh", "-c", 'printf %s "$1" >>/etc/fstab', "sh", LINE)
    machine.disk.run("sh", "-ec", "rmdir /home; mkdir /var/home; ln -s var/home /home")
    enabled = machine.disk.run("env", "container=chroot", "immud", "enable").stderr
    assert "and systemd mounts it where that leads; write /var/home" in " ".join(enabled.split())
    machine.boot()
    assert mounted(machine) == AT_VAR_HOME
    quiet(machine)
    assert complaints(machine) == []


def test_a_unit_is_renamed_as_the_refusal_says(machine: Container) -> None:
    machine.disk.write("/etc/systemd/system/home.mount", UNIT)
    machine.disk.run("systemctl", "enable", "home.mount")
    machine.boot()
    assert mounted(machine) == AT_HOME
    refused = machine.run("immud", "adopt", check=False)
    assert refused.status == 1
    told = re.findall(r"^    .*", refused.stderr, re.MULTILINE)
    assert len(told) == 3, refused.stderr
    machine.run("sh", "-exc", textwrap.dedent("\n".join(told)))
    machine.run("immud", "adopt")
    assert mounted(machine) == AT_VAR_HOME
    machine.run("immud", "enable")
    machine.reboot()
    assert mounted(machine) == AT_VAR_HOME
    quiet(machine)
    assert complaints(machine) == []
