"""The power goes at moments of chance: a sample of what tests/long does three hundred times."""

import os
from pathlib import Path

import pytest

from immud.cli.enable import lasting
from tests.support.filesystems import FILESYSTEMS
from tests.support.power import SEED, cut_at_random
from tests.support.two_disks import TwoDisks


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_a_few_cuts(tmp_path: Path, fstype: str) -> None:
    assert sum(cut_at_random(tmp_path, fstype, count=8, seed=SEED).values()) == 8


def test_a_few_cuts_while_homes_are_copied(tmp_path: Path) -> None:
    assert sum(cut_at_random(tmp_path, "ext4", count=6, seed=SEED, var="xfs").values()) == 6


@pytest.mark.parametrize("fstype", FILESYSTEMS)
def test_what_is_said_to_be_enabled_is_so_after_a_cut(tmp_path: Path, fstype: str) -> None:
    """As systemctl and apt's link leave it: made, and not flushed, on either disk."""
    machine = TwoDisks(str(tmp_path), "ext4", fstype)
    links = ("/etc/systemd/system/immud.service", "/usr/local/sbin/dpkg")

    def enabled() -> None:
        os.makedirs("/etc/systemd/system")
        os.makedirs("/var/usrlocal/sbin")
        os.rename("/usr/local", "/usr/was-local")
        os.symlink("../var/usrlocal", "/usr/local")
        for link in links:
            os.symlink("/usr/lib/something", link)
        lasting()
        machine.power_cut()

    def still_enabled() -> None:
        assert [os.readlink(link) for link in links] == ["/usr/lib/something"] * 2

    machine.boot(enabled)
    machine.after_power_cut()
    machine.boot(still_enabled)
