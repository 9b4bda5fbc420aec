"""An ext4 that an error has stopped, also where the kernel does not say so among its options."""

import encodings.ascii  # noqa: F401 - the tree that is looked at has none
import os
import stat
import subprocess
from pathlib import Path

from immud.early import mountinfo
from immud.early.mountinfo import MountEntry
from immud.watch.system import _name, stopped
from tests.support.namespaces import enter_root, namespaced
from tests.support.stock import mount_image, stock_image
from tests.support.waiting import until


def sysfs(where: Path) -> tuple[str, Path]:
    """The number of the file system mounted there, and what the kernel shows of it."""
    device = os.stat(where).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    return number, Path("/sys/fs/ext4", os.path.basename(os.readlink(f"/sys/dev/block/{number}")))


def as_linux_6_12_says_it(entry: MountEntry) -> MountEntry:
    entry.super_options = "rw,errors=remount-ro"
    return entry


def test_it_is_tried_out_where_errors_are_on_record(tmp_path: Path) -> None:
    image, where = stock_image(tmp_path, size="16M"), tmp_path / "root"
    subprocess.run(["tune2fs", "-e", "remount-ro", image], check=True)

    def look() -> tuple[frozenset[str], frozenset[str]]:
        mounts = mountinfo.read()
        shown = stopped(mounts)
        return shown, stopped(tuple(map(as_linux_6_12_says_it, mounts)))

    def work() -> None:
        mount_image(image, where)
        number, files = sysfs(where)
        trigger = os.open(files / "trigger_fs_error", os.O_WRONLY)
        subprocess.run(["mount", "--rbind", "/sys", where / "sys"], check=True)
        enter_root(str(where))
        assert look() == (frozenset(), frozenset())
        os.write(trigger, b"for a test\n")
        assert look() == (frozenset({number}), frozenset({number}))

    namespaced(work)


def test_an_error_of_long_ago_is_no_reason(tmp_path: Path) -> None:
    image, where = stock_image(tmp_path, size="16M"), tmp_path / "root"

    def work() -> None:
        mount_image(image, where)
        _, files = sysfs(where)
        # errors=continue: on record, and written to all the same
        (files / "trigger_fs_error").write_text("for a test\n")
        # The kernel goes on first, and counts it in a work queue.
        until(lambda: int((files / "errors_count").read_text()) > 0)
        subprocess.run(["mount", "--rbind", "/sys", where / "sys"], check=True)
        enter_root(str(where))
        assert stopped(mountinfo.read()) == frozenset()

    namespaced(work)


def test_the_kernel_has_names_of_its_own_for_what_is_mapped(tmp_path: Path) -> None:
    number = min(os.listdir("/sys/dev/block"))
    major, minor = map(int, number.split(":"))
    mapped = tmp_path / "sda3_crypt"
    os.mknod(mapped, stat.S_IFBLK | 0o600, os.makedev(major, minor))
    # A btrfs has a number that is no device's.
    entry = MountEntry(
        id=1, parent=0, dev="0:9999", root="/", target="/", options="rw", fstype="btrfs",
        source=str(mapped), super_options="rw",
    )  # fmt: skip
    name = os.path.basename(os.readlink(f"/sys/dev/block/{number}"))
    assert _name(entry) == name
    entry.source = "/dev/mapper/gone"
    assert _name(entry) == "gone"
