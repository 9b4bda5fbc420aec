"""A /home that is a file system of its own is mounted at /var/home instead, and back."""

import os
import shutil
from pathlib import Path

import pytest

from immud.adopt import adopt, release
from immud.config.load import Config
from immud.early import kernel, mountinfo
from immud.enable.check import look
from immud.enable.fstab import OWN
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


def etc_from_elsewhere() -> None:
    """As phase 1 leaves it; PID 1 has seen the other fstab by then, as `Machine.boot` does."""
    if not os.path.exists("/data/etc"):
        shutil.copytree("/etc", "/data/etc")
    kernel.mount("/data/etc", "/etc", None, kernel.MS_BIND)


def test_the_fstab_below_another_etc_changes_as_well(disks: Machine) -> None:
    def go() -> None:
        before = FSTAB.read_text()
        etc_from_elsewhere()
        (asked, own) = [line for line in look(Config()).fstab if line.where == "/home"]
        assert (asked.place, own.place) == ("/etc/fstab:4", f"/etc/fstab:4{OWN}")
        adopt((HOME,), ROWS)
        assert mounted() == ["/var/home"]
        assert FSTAB.read_text() != before
        assert adopt((HOME,), ROWS).steps == ()

    def come_back() -> None:
        # (The machine has mounted what the disk's own fstab says.)
        assert mounted() == ["/var/home"]
        etc_from_elsewhere()
        assert "LABEL=two /var/home xfs defaults 0 2\n" in FSTAB.read_text()
        release((HOME,), ROWS)
        assert mounted() == ["/home"]
        assert "immud" not in FSTAB.read_text()

    def boot() -> None:
        assert mounted() == ["/home"]
        assert "immud" not in FSTAB.read_text()

    disks.boot(go)
    disks.boot(come_back)
    disks.boot(boot)


def test_another_etc_that_was_changed_by_hand(disks: Machine) -> None:
    def go() -> None:
        etc_from_elsewhere()
        FSTAB.write_text(FSTAB.read_text().replace("two /home", "two /var/home"))
        adopt((HOME,), ROWS)
        assert mounted() == ["/var/home"]
        assert "immud" not in FSTAB.read_text()
        kernel.umount2("/etc")
        assert "\nLABEL=two /var/home xfs defaults 0 2\n" in FSTAB.read_text()

    disks.boot(go)


def test_what_only_the_fstab_below_another_etc_mounts_inside_is_said(disks: Machine) -> None:
    def go() -> None:
        with FSTAB.open("a") as file:
            file.write("LABEL=three /home/ada/shared xfs noauto 0 2\n")
        etc_from_elsewhere()
        FSTAB.write_text(FSTAB.read_text().replace("LABEL=three", "#"))
        said = r"/etc/fstab:5 \(the root file system's own\) mounts LABEL=three at /home/ada/shared"
        with pytest.raises(ImmudError, match=said):
            adopt((HOME,), ROWS)
        assert mounted() == ["/home"]

    disks.boot(go)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["", "etc from elsewhere"])
@pytest.mark.parametrize("change", [adopt, release])
def test_cut_off_at_any_step(tmp_path: Path, change: Change, elsewhere: bool) -> None:
    machine = TwoDisks(str(tmp_path), "ext4", "xfs", at="/home")
    also = etc_from_elsewhere if elsewhere else os.getpid

    def prepare() -> None:
        also()
        if change is release:
            adopt((HOME,), ROWS)
        os.sync()

    machine.boot(prepare)
    machine.keep()

    def whole() -> None:
        if elsewhere and "/etc" not in [mount.target for mount in mountinfo.read()]:
            etc_from_elsewhere()
        change((HOME,), ROWS)
        assert mounted() == (["/home"] if change is release else ["/var/home"])
        assert ("/home" in layout()) == (change is adopt)
        assert Path("/home/ada/notes").read_text() == "keep me\n"
        assert hidden() == []
        assert change((HOME,), ROWS).steps == ()
        if elsewhere:
            shown = FSTAB.read_text()
            kernel.umount2("/etc")
            assert FSTAB.read_text() == shown

    for number in range(count(machine, change, (HOME,))):

        def kill(number: int = number) -> None:
            also()
            killed(change, (HOME,), number)
            whole()

        def cut(number: int = number) -> None:
            also()
            change((HOME,), ROWS, progress=before_step(number, machine.power_cut))

        machine.back()
        machine.boot(kill)
        machine.back()
        machine.boot(cut)
        machine.after_power_cut()
        machine.boot(whole)
