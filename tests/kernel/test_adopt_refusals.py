"""What adopting and releasing refuse: nothing is touched, and the reason says what to do."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from immud.adopt import adopt, release
from immud.adopt.steps import Exchange, Step
from immud.early import kernel, mountinfo
from immud.errors import Busy, ImmudError, OtherFileSystem, TargetExists
from tests.support.filesystems import (
    HOME,
    LINKS,
    ROWS,
    Machine,
    immutable,
    layout,
    snapshot,
    tmpfs,
    trees,
)
from tests.support.namespaces import enter_root, forked

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
        "read-only file system",
        lambda: kernel.mount(None, "/", None, kernel.MS_REMOUNT | kernel.MS_RDONLY),
        ImmudError,
        "journalctl -k",
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


def test_an_overlay_is_refused_as_it_was(ext4: Machine) -> None:
    """A live system: an overlay cannot exchange a directory that lies below."""

    def test() -> None:
        for name in ("up", "work", "both"):
            os.makedirs(f"/run/over/{name}")
        options = "lowerdir=/,upperdir=/run/over/up,workdir=/run/over/work"
        kernel.mount("overlay", "/run/over/both", "overlay", 0, options)
        enter_root("/run/over/both")
        before = trees()
        with pytest.raises(OtherFileSystem, match="overlay"):
            adopt((HOME,), ROWS)
        assert trees() == before
        assert "home" not in os.listdir("/var")

    ext4.boot(test)


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
