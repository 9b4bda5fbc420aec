"""A freshly installed Debian in small, on an image of any file system, to boot again and again.

`Machine(directory, "xfs").boot(test)` runs `test` in a namespace whose root
directory is that system. What it does is there at the next `boot`, as on a disk;
`Machine.power_cut` is the disk as it would be if the power failed right now.
"""

import hashlib
import os
import stat
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from immud.config.layout import SILVERBLUE

# Imported by phase 1 only when needed, when there is nothing to import from any more.
from immud.early import elsewhere, facts, kernel, main, namespaces, plan, sources
from tests.support.namespaces import enter_root, namespaced

LOADED_LATE = (elsewhere, namespaces)
FILESYSTEMS = ("ext4", "xfs", "btrfs")
SIZES = {"ext4": 32 << 20, "xfs": 320 << 20, "btrfs": 128 << 20}
FORCE = {"ext4": "-F", "xfs": "-f", "btrfs": "-f"}

ROWS = SILVERBLUE
PLAIN = tuple(row for row in ROWS if row.path not in ("/media", "/tmp"))
HOME = ROWS[0]
LINKS = {row.path: row.target for row in ROWS if row.path != "/tmp"}

FSTAB = """\
# <file system> <mount point>   <type>  <options>       <dump>  <pass>
UUID=0a1b2c3d-0000-4000-8000-000000000001 / ext4 errors=remount-ro 0 1
UUID=0a1b2c3d-0000-4000-8000-000000000002 none swap sw 0 0
"""
# user::rwx user:1000:rwx group::r-x mask::rwx other::r-x, as acl(5) stores it
_ANYBODY = 0xFFFFFFFF
_ENTRIES = ((1, 7, _ANYBODY), (2, 7, 1000), (4, 5, _ANYBODY), (16, 7, _ANYBODY), (32, 5, _ANYBODY))
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in _ENTRIES)
ODD = "a name with spaces,\nnewlines and \udcff"


class Machine:
    """One disk with a stock system on it."""

    def __init__(self, directory: str, fstype: str, subvolumes: tuple[str, ...] = ()) -> None:
        self.fstype = fstype
        self.root = f"{directory}/root"
        self.image = f"{directory}/image"
        self.other = f"{directory}/image after a power cut"
        self.kept = f"{directory}/image to go back to"
        self._copy = -1
        os.mkdir(self.root)
        with open(self.image, "wb") as image:
            image.truncate(SIZES[fstype])
        make = [f"mkfs.{fstype}", FORCE[fstype], self.image]
        subprocess.run(make, check=True, capture_output=True)

        def install() -> None:
            self.mount()
            for name in subvolumes:
                make = ["btrfs", "subvolume", "create", f"{self.root}/{name}"]
                subprocess.run(make, check=True, capture_output=True)
            populate(self.root)

        self.namespaced(install)

    def boot(self, test: Callable[[], None]) -> None:
        """Run `test` with the system as the root directory, and /run and /dev as they would be."""

        def inside() -> None:
            self.mount()
            self._copy = os.open(self.other, os.O_RDWR | os.O_CREAT, 0o600)
            disk = os.open(self.image, os.O_RDONLY)
            kernel.mount("/dev", f"{self.root}/dev", None, kernel.MS_BIND)
            enter_root(self.root)
            kernel.mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
            self._disk = disk
            test()

        self.namespaced(inside)

    def power_cut(self) -> None:
        """Inside a boot: keep what has reached the disk by now, for `after_power_cut`."""
        written(self._disk, self._copy)

    def after_power_cut(self) -> None:
        """Go on with the disk that `power_cut` kept."""
        os.rename(self.other, self.image)

    def keep(self) -> None:
        """Remember the disk as it is."""
        subprocess.run(["cp", "--sparse=always", self.image, self.kept], check=True)

    def back(self) -> None:
        """Go on with the disk that `keep` remembered."""
        subprocess.run(["cp", "--sparse=always", self.kept, self.image], check=True)

    def mount(self) -> None:
        """Mount the disk at `root`, in a namespace."""
        node, keep = sources.attach_loop(self.image, readonly=False)
        try:
            kernel.mount(node, self.root, self.fstype, 0)
        finally:
            os.close(keep)

    def namespaced(self, work: Callable[[], None]) -> None:
        """Run `work` where its mounts are nobody else's, and see to it that they go."""
        try:
            namespaced(work)
        finally:
            # The last mount goes with the namespace, a moment after its last process.
            limit = time.monotonic() + 10
            while self._attached():
                assert time.monotonic() < limit, f"{self.image} is still in use"
                time.sleep(0.005)

    def images(self) -> tuple[str, ...]:
        """The files that are its disks."""
        return (self.image,)

    def _attached(self) -> bool:
        for device in os.listdir("/sys/block"):
            try:
                with open(f"/sys/block/{device}/loop/backing_file", encoding="utf-8") as file:
                    if file.read().strip() in self.images():
                        return True
            except OSError:
                continue
        return False


def written(disk: int, copy: int) -> None:
    """Make `copy` what has reached `disk` by now."""
    os.ftruncate(copy, 0)
    size = os.fstat(disk).st_size
    at = 0
    while at < size:
        try:
            at = os.lseek(disk, at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole up to the end
            break
        end = os.lseek(disk, at, os.SEEK_HOLE)
        while at < end:
            at += os.copy_file_range(disk, copy, end - at, at, at)
    os.ftruncate(copy, size)


def immutable() -> facts.Facts:
    """Do what immud's boot does."""
    Path(plan.PATH).write_bytes(plan.encode(plan.BootPlan(rows=ROWS)))
    return main.lay_out()


def populate(root: str) -> None:
    """The directories of a stock system, a user with files of every kind, root's dot files."""
    for name in ("etc/immud", "usr/bin", "var/lib", "var/log", "proc", "run", "dev", "sys"):
        os.makedirs(f"{root}/{name}")
    for name in ("home", "opt", "srv", "mnt", "media"):
        os.makedirs(f"{root}/{name}", 0o755, exist_ok=True)
    os.mkdir(f"{root}/root", 0o700)
    os.mkdir(f"{root}/tmp")
    os.chmod(f"{root}/tmp", 0o1777)
    _write(f"{root}/etc/fstab", FSTAB)
    _write(f"{root}/root/.bashrc", "umask 077\n")
    for name in next(row.inside for row in ROWS if row.inside):
        if name == "man":
            os.symlink("share/man", f"{root}/usr/local/man")
        else:
            os.makedirs(f"{root}/usr/local/{name}")
    os.mkdir(f"{root}/usr/local/share/man")
    os.chown(f"{root}/usr/local/share", 0, 50)
    os.chmod(f"{root}/usr/local/share", 0o2775)
    _write(f"{root}/usr/local/bin/tool", "#!/bin/sh\n")
    os.makedirs(f"{root}/opt/vendor/app")
    _user(f"{root}/home/ada")


def _user(home: str) -> None:
    os.mkdir(home, 0o750)
    _write(f"{home}/notes", "keep me\n")
    _write(f"{home}/{ODD}", "odd\n")
    os.link(f"{home}/notes", f"{home}/hard link")
    os.symlink("nowhere at all", f"{home}/dangling")
    os.mkfifo(f"{home}/fifo")
    os.mkdir(f"{home}/shared")
    os.setxattr(f"{home}/notes", "user.colour", b"blue")
    os.setxattr(f"{home}/shared", "system.posix_acl_access", ACL)
    os.setxattr(f"{home}/shared", "system.posix_acl_default", ACL)
    for name in ("", "notes", "shared"):
        os.chown(f"{home}/{name}", 1000, 1000)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


_KERNELS = ("//dev", "//proc", "//sys")  # what is in these is not the system's
Seen = dict[str, tuple[object, ...]]


def snapshot(top: str) -> Seen:
    """Everything a program can find out about a tree but its times, by relative path."""
    seen: Seen = {}

    def look(path: str, name: str) -> None:
        status = os.lstat(path)
        content = ""
        if stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                content = hashlib.sha256(file.read()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        attributes = tuple(
            (key, os.getxattr(path, key, follow_symlinks=False))
            for key in sorted(os.listxattr(path, follow_symlinks=False))
        )
        owner = (status.st_mode, status.st_uid, status.st_gid)
        seen[name] = (status.st_ino, *owner, content, attributes)
        if stat.S_ISDIR(status.st_mode):
            for child in sorted(os.listdir(path)):
                if f"{path}/{child}" not in _KERNELS:
                    look(f"{path}/{child}", f"{name}/{child}")

    look(top, "")
    return seen


def layout() -> dict[str, str]:
    """The links that are in their places."""
    return {row.path: os.readlink(row.path) for row in ROWS if os.path.islink(row.path)}


def trees() -> dict[str, Seen]:
    """The rows' trees as a program sees them, whichever layout it is."""
    return {row.path: snapshot(f"{row.path}/.") for row in PLAIN}


def refused(path: str) -> bool:
    """Whether nothing can be made there."""
    try:
        os.mkdir(path)
    except OSError:
        return True
    os.rmdir(path)
    return False


def tmpfs(path: str) -> None:
    """Some other file system at `path`."""
    kernel.mount("tmpfs", path, "tmpfs", 0)


def void(_: object) -> None:
    """A call for its effect."""
