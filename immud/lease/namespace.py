"""The mount namespace of a lease, made in the process that becomes the command."""

import os

from immud.early import kernel, mountinfo
from immud.lease.begin import locked
from immud.lease.wire import Failed

TRIED = ("/usr", "/var/lib/dpkg")
"""What a trial shows a writable copy of: package files, and what dpkg knows of them."""


def is_image() -> bool:
    """Whether /usr is a file system that nobody can write to."""
    entry = mountinfo.top(mountinfo.read(), "/usr")
    return entry is not None and "ro" in entry.super_options.split(",")


def leave(legacy: bool = False) -> int:
    """Move this process into a mount namespace of its own; the inode number of that.

    A slave of the one it comes from: mounts and unmounts arrive here and none goes back.
    """
    kernel.unshare()
    if legacy:
        kernel.mount(None, "/", None, kernel.MS_SLAVE | kernel.MS_REC)
    else:
        kernel.mount_setattr("/", propagation=kernel.MS_SLAVE, recursive=True)
    return os.stat("/proc/self/ns/mnt").st_ino


def loosen(scratch: str, legacy: bool = False) -> None:
    """Make / and /usr writable in this namespace, which is not the host's any more.

    A /usr that is an image gets a writable copy of itself and of dpkg's database,
    in memory at `scratch`, which goes with the namespace; without one it stays. Raises Failed.
    """
    trial = is_image()
    for path in locked():
        if trial and path == "/usr":
            continue
        if legacy:
            kernel.mount(None, path, None, kernel.MS_REMOUNT | kernel.MS_BIND)
        else:
            kernel.mount_setattr(path, clear=kernel.MOUNT_ATTR_RDONLY)
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            raise Failed(
                f"the file system of {path} is read-only itself (is it full of errors? "
                "see: journalctl -k), so a lease cannot make it writable"
            )
    if trial and scratch:
        _overlay(scratch)


def _overlay(scratch: str) -> None:
    """Writable copies of what a package changes, in a tmpfs that only this namespace has."""
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    kernel.mount("tmpfs", scratch, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=700")
    for path in TRIED:
        place = f"{scratch}/{path[1:].replace('/', '-')}"
        upper, work = f"{place}.upper", f"{place}.work"
        like = os.stat(path)
        for directory in (upper, work):
            os.mkdir(directory)
            os.chmod(directory, like.st_mode & 0o7777)
        options = f"lowerdir={path},upperdir={upper},workdir={work}"
        kernel.mount("immud-trial", path, "overlay", 0, options)
