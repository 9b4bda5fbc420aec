"""Adopting and releasing a stock system, on real file systems."""

import os
from pathlib import Path

import pytest

from immud.adopt import adopt, apparmor, release
from immud.early import mountinfo
from immud.early.plan import Row
from immud.errors import Busy, OtherFileSystem
from tests.kernel.test_adopt_crash import before_step, killed
from tests.support.filesystems import (
    HOME,
    LINKS,
    PLAIN,
    ROWS,
    Machine,
    immutable,
    layout,
    refused,
    snapshot,
    tmpfs,
    trees,
    void,
)


def test_a_stock_system_goes_and_comes_back(machine: Machine) -> None:
    def test() -> None:
        before = trees()
        var = sorted(os.listdir("/var"))
        outcome = adopt(ROWS, ROWS)
        assert layout() == LINKS
        assert trees() == before
        assert os.stat("/var/roothome").st_mode & 0o777 == 0o700
        assert os.listdir("/run/media") == []
        assert [note.split()[0] for note in outcome.notes] == ["/tmp"]
        assert adopt(ROWS, ROWS).steps == ()
        release(ROWS, ROWS)
        assert layout() == {}
        assert trees() == before
        assert sorted(os.listdir("/var")) == var
        assert not [name for name in os.listdir("/") if name.startswith(".")]
        assert release(ROWS, ROWS).steps == ()

    machine.boot(test)


def test_the_dry_run_does_nothing_and_the_run_does_just_that(ext4: Machine) -> None:
    def test() -> None:
        before = trees()
        promised = adopt(ROWS, ROWS, dry_run=True)
        assert layout() == {}
        assert trees() == before
        done: list[str] = []
        outcome = adopt(ROWS, ROWS, progress=lambda step: done.append(step.describe()))
        assert [step.describe() for step in promised.steps] == done
        assert outcome == promised

    ext4.boot(test)


def test_a_row_that_is_absent_or_empty_becomes_a_link_as_well(ext4: Machine) -> None:
    def test() -> None:
        os.rmdir("/srv")
        os.chmod("/mnt", 0o2770)
        adopt(PLAIN, ROWS)
        assert os.readlink("/srv") == "var/srv"
        assert os.listdir("/var/srv") == []
        assert os.stat("/var/mnt").st_mode & 0o7777 == 0o2770
        os.unlink("/srv")  # as dpkg does when the last package with files in it goes
        Path("/var/srv/site").touch()
        adopt(PLAIN, ROWS)
        assert os.listdir("/srv") == ["site"]

    ext4.boot(test)


def test_what_is_missing_in_usr_local_is_added(ext4: Machine) -> None:
    def test() -> None:
        os.rmdir("/usr/local/src")
        os.unlink("/usr/local/man")
        os.symlink("no such place", "/usr/local/man")
        adopt(PLAIN, ROWS)
        assert os.path.isdir("/usr/local/src")
        assert os.readlink("/usr/local/man") == "no such place"

    ext4.boot(test)


def test_an_empty_directory_at_the_target_gives_way(ext4: Machine) -> None:
    def test() -> None:
        os.mkdir("/var/home")
        before = trees()
        adopt((HOME,), ROWS)
        assert trees() == before

    ext4.boot(test)


def test_media_with_an_installer_s_directories_stays(ext4: Machine) -> None:
    def test() -> None:
        os.mkdir("/media/cdrom0")
        os.symlink("cdrom0", "/media/cdrom")
        with open("/etc/fstab", "a", encoding="utf-8") as fstab:
            fstab.write("/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\n")
        outcome = adopt(ROWS, ROWS)
        assert sorted(os.listdir("/media")) == ["cdrom", "cdrom0"]
        assert "/etc/fstab:4" in "".join(outcome.notes)
        assert layout() == {path: to for path, to in LINKS.items() if path != "/media"}

    ext4.boot(test)


def test_a_home_that_is_a_subvolume_moves_like_a_directory(tmp_path: Path) -> None:
    def test() -> None:
        before = trees()
        adopt((HOME,), ROWS)
        assert trees() == before
        release((HOME,), ROWS)
        assert trees() == before

    Machine(str(tmp_path), "btrfs", subvolumes=("home",)).boot(test)


def test_links_made_by_hand_to_a_var_of_its_own_are_fine(ext4: Machine) -> None:
    def test() -> None:
        tmpfs("/var")
        for row in PLAIN:
            os.makedirs(row.directory)
            os.rename(row.path, f"{row.path}.old")
            os.symlink(row.target, row.path)
            for name in row.inside:
                os.mkdir(f"{row.directory}/{name}")
        assert adopt(PLAIN, ROWS).steps == ()
        with pytest.raises(OtherFileSystem, match="mounted at /var"):
            release(PLAIN, ROWS)

    ext4.boot(test)


def test_a_row_that_is_bound(ext4: Machine) -> None:
    bound = (Row("/home", "var/home", kind="bind"),)

    def test() -> None:
        before = snapshot("/home")
        adopt(bound, bound)
        assert snapshot("/home") == snapshot("/var/home") == before
        Path("/home/ada/new").touch()
        assert os.path.exists("/var/home/ada/new")
        os.unlink("/home/ada/new")
        assert adopt(bound, bound).steps == ()
        release(bound, bound)
        assert snapshot("/home") == before
        assert not os.path.exists("/var/home")
        assert not os.path.ismount("/home")

    ext4.boot(test)


BOUND = (Row("/home", "var/home", kind="bind"),)


def bound() -> bool:
    return any(mount.target == "/home" for mount in mountinfo.read())


def test_a_row_goes_from_link_to_bind_and_back(machine: Machine) -> None:
    def test() -> None:
        before = snapshot("/home")
        for number in range(2):
            adopt((HOME,), ROWS)
            assert os.readlink("/home") == "var/home"
            assert snapshot("/home/.") == before
            if number:
                assert immutable().layout == "done"
            adopt(BOUND, BOUND)
            assert bound()
            assert snapshot("/home") == snapshot("/var/home") == before
            assert adopt(BOUND, BOUND).steps == ()
        assert not refused("/home/new")
        adopt((HOME,), ROWS)
        assert not refused("/home/new")
        assert not [name for name in os.listdir("/") if name.startswith(".")]

    machine.boot(test)


def test_a_row_that_was_bound_is_not_linked_under_somebody_s_mounts(ext4: Machine) -> None:
    def test() -> None:
        adopt(BOUND, BOUND)
        tmpfs("/home/ada/shared")
        with pytest.raises(Busy, match="umount /home/ada/shared"):
            adopt((HOME,), ROWS)
        assert bound()

    ext4.boot(test)


def test_killed_while_a_bound_row_becomes_a_link(tmp_path: Path) -> None:
    machine = Machine(str(tmp_path), "ext4")
    machine.boot(lambda: void(adopt(BOUND, BOUND)))
    machine.keep()

    for number in range(6):

        def cut(number: int = number) -> None:
            adopt(BOUND, BOUND)
            adopt((HOME,), ROWS, progress=before_step(number, machine.power_cut))

        def test(number: int = number) -> None:
            adopt(BOUND, BOUND)
            before = snapshot("/home")
            killed(adopt, (HOME,), number)
            assert snapshot("/var/home") == before
            adopt((HOME,), ROWS)
            assert os.readlink("/home") == "var/home"
            assert snapshot("/home/.") == before
            assert not [name for name in os.listdir("/") if name.startswith(".")]

        def boot() -> None:
            assert immutable().layout == "done"
            assert Path("/home/ada/notes").read_text() == "keep me\n"
            adopt((HOME,), ROWS)
            assert Path("/home/ada/notes").read_text() == "keep me\n"
            assert os.readlink("/home") == "var/home"

        machine.back()
        machine.boot(test)
        machine.back()
        machine.boot(cut)
        machine.after_power_cut()
        machine.boot(boot)


def test_apparmor_s_aliases_come_and_go(ext4: Machine) -> None:
    def test() -> None:
        os.makedirs(apparmor.TUNABLES)
        adopt((HOME,), ROWS)
        assert "alias /home/ -> /var/home/," in Path(apparmor.FILE).read_text()
        adopt(ROWS, ROWS)
        assert "alias /root/ -> /var/roothome/," in Path(apparmor.FILE).read_text()
        release((HOME,), ROWS)
        assert "/home/" not in Path(apparmor.FILE).read_text().replace("roothome", "")
        release(ROWS, ROWS)
        assert os.listdir(apparmor.TUNABLES) == []

    ext4.boot(test)
