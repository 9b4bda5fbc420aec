"""Adopting and releasing on real file systems, each in a namespace of its own."""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from immud.adopt import adopt, apparmor, release
from immud.adopt.steps import Exchange, Step
from immud.early import kernel, mountinfo
from immud.early.plan import Row
from immud.errors import Busy, ImmudError, OtherFileSystem, TargetExists
from tests.support import filesystems
from tests.support.filesystems import PLAIN, ROWS, Machine, Seen, immutable, snapshot
from tests.support.namespaces import forked

HOME = ROWS[0]
LINKS = {row.path: row.target for row in ROWS if row.path != "/tmp"}


@pytest.fixture(params=filesystems.FILESYSTEMS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(str(tmp_path), request.param)


@pytest.fixture
def ext4(tmp_path: Path) -> Machine:
    return Machine(str(tmp_path), "ext4")


def layout() -> dict[str, str]:
    return {row.path: os.readlink(row.path) for row in ROWS if os.path.islink(row.path)}


def trees() -> dict[str, Seen]:
    """The rows' trees as a program sees them, whichever layout it is."""
    return {row.path: snapshot(f"{row.path}/.") for row in PLAIN}


def refused(path: str) -> bool:
    try:
        os.mkdir(path)
    except OSError:
        return True
    os.rmdir(path)
    return False


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


def test_an_immutable_system_goes_and_comes_back(machine: Machine) -> None:
    def test() -> None:
        assert immutable().layout == "done"
        assert refused("/new")
        rows = tuple(row for row in ROWS if row.path in ("/home", "/opt", "/root", "/usr/local"))
        before = trees()
        outcome = adopt(rows, ROWS)
        assert "working directory" in outcome.reboot
        assert layout() == LINKS | {"/tmp": "sysroot/tmp"}
        assert trees() == before
        assert not refused("/home/ada/new")
        assert not refused("/usr/local/bin/new")
        assert {m.target for m in mountinfo.read()} & {row.path for row in rows} == set()
        release(rows, ROWS)
        assert not set(layout()) & {row.path for row in rows}
        assert trees() == before
        for row in rows:
            assert not refused(f"{row.path}/new")
        assert refused("/new")
        assert refused("/usr/new")
        assert release(rows, ROWS).steps == ()

    machine.boot(test)


def test_the_adopted_layout_boots(machine: Machine) -> None:
    def again() -> None:
        made = immutable()
        assert made.layout == "done", made.problems
        assert layout() == LINKS | {"/tmp": "sysroot/tmp"}
        assert refused("/new")
        for row in PLAIN:
            assert not refused(f"{row.path}/new")
        assert adopt(ROWS, ROWS).steps == ()

    machine.boot(lambda: void(adopt(ROWS, ROWS)))
    machine.boot(again)


def void(_: object) -> None:
    """A call for its effect."""


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


def test_open_files_and_working_directories_keep_working(ext4: Machine) -> None:
    def test() -> None:
        immutable()
        os.chdir("/home/ada")
        with open("notes", "r+", encoding="utf-8") as notes:
            adopt((HOME,), ROWS)
            assert notes.read() == "keep me\n"
            notes.write("and more\n")
        os.mkdir("made from the old working directory")
        assert Path("/home/ada/notes").read_text() == "keep me\nand more\n"
        assert os.path.isdir("/home/ada/made from the old working directory")

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


IN_THE_WAY: dict[str, Callable[[str], object]] = {
    "a file": lambda path: Path(path).touch(),
    "a directory with something in it": lambda path: os.makedirs(f"{path}/x"),
    "a link to /etc": lambda path: os.symlink("/etc", path),
    "a link to nowhere": lambda path: os.symlink("nowhere", path),
    "a FIFO": os.mkfifo,
    "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(path),
}


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_something_in_the_way_is_left_alone(ext4: Machine, what: str) -> None:
    def test() -> None:
        IN_THE_WAY[what]("/var/home")
        before = snapshot("/")
        with pytest.raises(TargetExists, match=f"/var/home is {what}"):
            adopt(ROWS, ROWS)
        assert snapshot("/") == before

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


def tmpfs(path: str) -> None:
    kernel.mount("tmpfs", path, "tmpfs", 0)


def append(path: str, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


def unit(text: str) -> None:
    os.makedirs("/etc/systemd/system")
    append("/etc/systemd/system/mnt-disk.mount", text)


def tomb() -> None:
    os.mkdir("/var/home")
    tmpfs("/var/home")


def moved_var() -> None:
    os.rename("/var", "/usr/v")
    os.symlink("usr/v", "/var")


REFUSALS: list[tuple[str, Callable[[], object], type[ImmudError], str]] = [
    ("home partition", lambda: tmpfs("/home"), OtherFileSystem, r"own, tmpfs \(tmpfs\)"),
    ("var partition", lambda: tmpfs("/var"), OtherFileSystem, "mounted at /var"),
    ("usr partition", lambda: tmpfs("/usr"), OtherFileSystem, "/usr/local.*mounted at /usr"),
    ("stick", lambda: tmpfs("/home/ada/shared"), Busy, "umount /home/ada/shared"),
    (
        "tomb",
        tomb,
        Busy,
        "mounted at /var/home: close the tomb",
    ),
    (
        "fstab",
        lambda: append("/etc/fstab", "/dev/sdb1\t/srv/my\\040disk ext4 noauto 0 2\n"),
        OtherFileSystem,
        "/etc/fstab:4 mounts /dev/sdb1 at /srv/my disk.*/var/srv/my disk",
    ),
    (
        "unit",
        lambda: unit("[Mount]\nWhat=/dev/sdb2\nWhere=/mnt/disk\n"),
        OtherFileSystem,
        "mnt-disk.mount mounts /dev/sdb2",
    ),
    (
        "var link",
        moved_var,
        OtherFileSystem,
        "/var is a link",
    ),
]


@pytest.mark.parametrize(
    ("prepare", "error", "says"), [r[1:] for r in REFUSALS], ids=[r[0] for r in REFUSALS]
)
def test_a_refusal_touches_nothing(
    ext4: Machine, prepare: Callable[[], object], error: type[ImmudError], says: str
) -> None:
    def test() -> None:
        prepare()
        before, mounts = snapshot("/"), mountinfo.read()
        with pytest.raises(error, match=says):
            adopt(ROWS, ROWS)
        assert snapshot("/") == before
        assert mountinfo.read() == mounts

    ext4.boot(test)


def test_a_var_from_elsewhere_is_refused(ext4: Machine) -> None:
    def test() -> None:
        os.makedirs("/srv/var/lib")
        kernel.mount("/srv/var", "/var", None, kernel.MS_BIND)
        with pytest.raises(OtherFileSystem, match="mounted at /var"):
            adopt((HOME,), ROWS)
        assert os.listdir("/srv/var") == ["lib"]

    ext4.boot(test)


def test_a_tomb_in_use_keeps_release_away(ext4: Machine) -> None:
    def test() -> None:
        adopt(ROWS, ROWS)
        tmpfs("/var/home")
        with pytest.raises(Busy, match="close the tomb"):
            release(ROWS, ROWS)
        assert layout() == LINKS

    ext4.boot(test)


def test_a_subvolume_is_another_file_system(tmp_path: Path) -> None:
    def test() -> None:
        with pytest.raises(OtherFileSystem, match="two btrfs subvolumes"):
            adopt((HOME,), ROWS)

    machine = Machine(str(tmp_path), "btrfs", subvolumes=("var",))
    machine.boot(test)


def test_two_at_once_do_not_meet(ext4: Machine) -> None:
    def test() -> None:
        def second(_step: object) -> None:
            with pytest.raises(Busy, match="another immud"):
                adopt(ROWS, ROWS)

        assert adopt(ROWS, ROWS, progress=second).steps

    ext4.boot(test)


def test_a_namespace_of_one_s_own_is_refused(ext4: Machine) -> None:
    def test() -> None:
        def apart() -> None:
            kernel.unshare(kernel.CLONE_NEWNS)
            with pytest.raises(ImmudError, match="namespace of its own"):
                adopt(ROWS, ROWS)

        forked(apart)
        assert layout() == {}

    ext4.boot(test)


def test_a_service_with_a_view_of_its_own_is_named(ext4: Machine) -> None:
    def test() -> None:
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            kernel.unshare(kernel.CLONE_NEWNS)
            kernel.mount("tmpfs", "/home", "tmpfs", kernel.MS_RDONLY)
            os.write(told, b".")
            signal.pause()
        os.read(ready, 1)
        outcome = adopt(ROWS, ROWS)
        assert f"process {pid}" in outcome.reboot

    ext4.boot(test)


def test_a_directory_that_fills_up_meanwhile_goes_back(ext4: Machine) -> None:
    def test() -> None:
        def meddle(step: Step) -> None:
            if isinstance(step, Exchange):
                Path("/media/stick").touch()

        media = tuple(row for row in ROWS if row.path == "/media")
        with pytest.raises(TargetExists, match="meanwhile"):
            adopt(media, ROWS, progress=meddle)
        assert os.listdir("/media") == ["stick"]
        assert layout() == {}
        assert not [name for name in os.listdir("/") if name.startswith(".")]

    ext4.boot(test)


def test_an_exchange_that_cannot_be_leaves_all_as_it_was(ext4: Machine) -> None:
    """Something is mounted between the look and the exchange: EBUSY."""

    def test() -> None:
        immutable()
        before, mounts = trees(), {(m.target, m.root) for m in mountinfo.read()}

        def meddle(step: Step) -> None:
            if isinstance(step, Exchange):
                tmpfs("/home")

        with pytest.raises(Busy, match="mounted there meanwhile"):
            adopt((HOME,), ROWS, progress=meddle)
        kernel.umount2("/home")  # of the two, the writable one that was put back is on top
        kernel.umount2("/home")
        adopt((HOME,), ROWS)
        assert trees() == before
        assert {(m.target, m.root) for m in mountinfo.read()} == mounts - {("/home", "/home")}

    ext4.boot(test)


def test_with_shared_mounts_and_a_service_in_a_slave_namespace(ext4: Machine) -> None:
    """As systemd has it: / is shared, and what a service has of its own follows it."""

    def test() -> None:
        kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_SHARED)
        immutable()
        before = trees()
        go, told = socket.socketpair()

        def service() -> None:
            told.recv(1)
            assert os.readlink("/home") == "var/home"
            Path("/home/ada/from the service").touch()
            assert "/home" not in {m.target for m in mountinfo.read()}

        pid = os.fork()
        if pid == 0:
            kernel.unshare(kernel.CLONE_NEWNS)
            kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_SLAVE)
            told.send(b".")
            with suppress(BaseException):
                service()
                os._exit(0)
            os._exit(1)
        go.recv(1)
        adopt((HOME,), ROWS)
        go.send(b".")
        assert os.waitpid(pid, 0)[1] == 0
        os.unlink("/home/ada/from the service")
        assert trees() == before
        release((HOME,), ROWS)
        assert trees() == before
        assert not refused("/home/new")

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
