"""A small system that looks like a freshly installed Debian, on a file system of its own.

Only for use inside `tests.support.namespaces`: `boot(image)` mounts the image and
makes it the child's root directory.
"""

import hashlib
import os
import stat
import struct
import subprocess

from immud.early import kernel, sources
from immud.layout import SILVERBLUE
from tests.support.namespaces import enter_root

FILESYSTEMS = ("ext4", "xfs", "btrfs")
_SIZES = {"ext4": 32 << 20, "xfs": 320 << 20, "btrfs": 128 << 20}
_FORCE = {"ext4": "-F", "xfs": "-f", "btrfs": "-f"}

ROWS = SILVERBLUE
PLAIN = tuple(row for row in ROWS if row.path not in ("/media", "/tmp"))

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


def make_image(path: str, fstype: str, root: str) -> None:
    """A file system image with the stock tree in it; `root` is an empty directory to mount it at.

    Call it inside a namespace.
    """
    with open(path, "wb") as image:
        image.truncate(_SIZES[fstype])
    subprocess.run([f"mkfs.{fstype}", _FORCE[fstype], path], check=True, capture_output=True)
    mount_image(path, fstype, root)
    populate(root)
    kernel.umount2(root)


def mount_image(path: str, fstype: str, where: str) -> None:
    """Mount the image; its loop device goes when the mount goes."""
    node, keep = sources.attach_loop(path, readonly=False)
    try:
        kernel.mount(node, where, fstype, 0)
    finally:
        os.close(keep)


def boot(path: str, fstype: str, where: str) -> None:
    """Make the image's file system the root directory, with /proc and a /run on tmpfs."""
    mount_image(path, fstype, where)
    enter_root(where)
    kernel.mount("tmpfs", "/run", "tmpfs", 0, "mode=755")


def immutable() -> None:
    """Arrange the mounts as immud's boot does: clones of /usr, /etc, /var, then / read-only.

    Directories that are not adopted get a writable clone of their own.
    """
    for path in ("/usr", "/etc", "/var"):
        clone(path, read_only=path == "/usr")
    for row in ROWS:
        if not os.path.islink(row.path):
            clone(row.path, read_only=False)
    kernel.mount_setattr("/", set_=kernel.MOUNT_ATTR_RDONLY)


def clone(path: str, *, read_only: bool) -> None:
    tree = kernel.open_tree(path)
    if read_only:
        kernel.mount_setattr("", set_=kernel.MOUNT_ATTR_RDONLY, dir_fd=tree)
    else:
        kernel.mount_setattr("", clear=kernel.MOUNT_ATTR_RDONLY, dir_fd=tree)
    kernel.move_mount(tree, path)
    os.close(tree)


def populate(root: str) -> None:
    """The directories of a stock system, a user with files of every kind, root's dot files."""
    for name in ("etc", "usr/bin", "var/lib", "var/log", "proc", "run", "dev", "sys"):
        os.makedirs(f"{root}/{name}")
    for name in ("home", "opt", "srv", "mnt", "media"):
        os.mkdir(f"{root}/{name}", 0o755)
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
                look(f"{path}/{child}", f"{name}/{child}")

    look(top, "")
    return seen
