"""A /home that is a file system of its own is mounted at /var/home instead, and back."""

import os
from pathlib import Path

import pytest

from immud.adopt import adopt, release
from immud.early import mountinfo
from immud.errors import Busy, ImmudError
from tests.kernel.test_adopt_across import content, hidden
from tests.kernel.test_adopt_crash import Change, before_step, count, killed
from tests.support.filesystems import HOME, ROWS, Machine, immutable, layout, refused, tmpfs, void
from tests.support.namespaces import forked
from tests.support.two_disks import TwoDisks

FSTAB = Path("/etc/fstab")


@pytest.fixture
def disks(tmp_path: Path) -> Machine:
    return TwoDisks(str(tmp_path), "ext4", "xfs", at="/home")


def mounted() -> list[str]:
    return [mount.target for mount in mountinfo.read() if mount.target in ("/home", "/var/home")]


def test_a_partition_goes_and_comes_back(disks: Machine) -> None:
    def go() -> None:
        before, fstab = content("/home"), FSTAB.read_text()
        promised = adopt((HOME,), ROWS, dry_run=True)
        assert FSTAB.read_text() == fstab
        done: list[str] = []
        adopt((HOME,), ROWS, progress=lambda step: done.append(step.describe()))
        assert done == [step.describe() for step in promised.steps]
        assert layout() == {"/home": "var/home"}
        assert mounted() == ["/var/home"]
        assert "LABEL=two /var/home xfs defaults 0 2\n" in FSTAB.read_text()
        assert content("/home") == before
        assert adopt((HOME,), ROWS).steps == ()
        assert hidden() == []

    def boot_and_return() -> None:
        assert mounted() == ["/var/home"]
        before = content("/home")
        release((HOME,), ROWS)
        assert "/home" not in layout()
        assert mounted() == ["/home"]
        assert content("/home") == before
        assert release((HOME,), ROWS).steps == ()
        assert "LABEL=two /home xfs defaults 0 2\n" in FSTAB.read_text()
        assert "immud" not in FSTAB.read_text()

    def boot_immutably() -> None:
        assert immutable().layout == "done"
        assert not refused("/home/new")
        assert refused("/new")

    disks.boot(go)
    disks.boot(boot_immutably)
    disks.boot(boot_and_return)
    disks.boot(lambda: void(content("/home/ada")))


def test_who_keeps_it_mounted_is_named(disks: Machine) -> None:
    def test() -> None:
        fstab = FSTAB.read_text()
        os.chdir("/home/ada")

        def elsewhere() -> None:
            os.chdir("/")
            adopt((HOME,), ROWS)

        with pytest.raises(Busy, match=r"/home is in use.*working directory"):
            forked(elsewhere)
        os.chdir("/")
        with open("/home/ada/notes", encoding="utf-8"):  # found by nobody but umount(2)
            with pytest.raises(Busy, match="could not unmount /home"):
                adopt((HOME,), ROWS)
            assert mounted() == ["/home"]
        assert FSTAB.read_text() == fstab
        assert layout() == {}
        tmpfs("/home/ada/shared")
        with pytest.raises(Busy, match="umount /home/ada/shared"):
            adopt((HOME,), ROWS)

    disks.boot(test)


def test_what_is_below_the_mount_is_not_hidden_for_good(disks: Machine) -> None:
    def test() -> None:
        os.mkdir("/var/home")
        Path("/var/home/mine").touch()
        with pytest.raises(ImmudError, match="/var/home is a directory with something in it"):
            adopt((HOME,), ROWS)
        assert mounted() == ["/home"]

    disks.boot(test)


@pytest.mark.parametrize("change", [adopt, release])
def test_cut_off_at_any_step(tmp_path: Path, change: Change) -> None:
    machine = TwoDisks(str(tmp_path), "ext4", "xfs", at="/home")
    if change is release:
        machine.boot(lambda: void(adopt((HOME,), ROWS)))
    machine.keep()

    def whole() -> None:
        change((HOME,), ROWS)
        assert mounted() == (["/home"] if change is release else ["/var/home"])
        assert ("/home" in layout()) == (change is adopt)
        assert Path("/home/ada/notes").read_text() == "keep me\n"
        assert hidden() == []
        assert change((HOME,), ROWS).steps == ()

    for number in range(count(machine, change, (HOME,))):

        def kill(number: int = number) -> None:
            killed(change, (HOME,), number)
            whole()

        def cut(number: int = number) -> None:
            change((HOME,), ROWS, progress=before_step(number, machine.power_cut))

        machine.back()
        machine.boot(kill)
        machine.back()
        machine.boot(cut)
        machine.after_power_cut()
        machine.boot(whole)
