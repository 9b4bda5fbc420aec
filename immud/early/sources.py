"""Where /usr, /etc and /var come from when they come from elsewhere.

A source is a directory, an image file (erofs, squashfs, ext4), or a file system
named by a tag (`LABEL=`, `UUID=`, `PARTLABEL=`, `PARTUUID=`), each tag with an
optional `:/sub/path`. Loaded only when one is configured: udevd runs by then,
because the generator ordered phase 1 behind the device units.
"""

import _socket
import errno
import fcntl
import os
import select
import stat
import struct

from immud.early import kernel
from immud.early.process import command

# What an unprobed device or image may hold; the kernel tells quickly which it is.
FILE_SYSTEMS = ("erofs", "squashfs", "ext4", "xfs", "btrfs")

_BY_TAG = {
    "LABEL": "/dev/disk/by-label",
    "UUID": "/dev/disk/by-uuid",
    "PARTLABEL": "/dev/disk/by-partlabel",
    "PARTUUID": "/dev/disk/by-partuuid",
}

# linux/loop.h
_LOOP_CONTROL = os.makedev(10, 237)
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
_LO_FLAGS_DIRECT_IO = 16
_LOOP_CONFIG = "=II" + "QQQQQIIII64s64s32s2Q" + "8Q"


def split(source: str) -> tuple[str, str]:
    """A source as what holds the file system, a device or file path, and the path inside."""
    if source.startswith("/"):
        return source, ""
    tag, _, rest = source.partition("=")
    value, _, inside = rest.partition(":/")
    return f"{_BY_TAG[tag]}/{_udev_escape(value)}", inside


def _udev_escape(value: str) -> str:
    """A tag's value as udev names its link: all but some characters as \\xNN (util-linux)."""
    safe = "#+-.:=@_"
    return "".join(
        c if (c.isascii() and c.isalnum()) or c in safe or not c.isascii() else f"\\x{ord(c):02x}"
        for c in value
    )


def tree(source: str, *, readonly: bool) -> int:
    """A detached mount of what `source` names. Raises OSError, saying what is missing."""
    holder, inside = split(source)
    if not os.path.exists(holder):
        raise OSError(errno.ENODEV, f"{source} is not there", holder)
    if os.path.isdir(holder):
        return kernel.open_tree(holder, kernel.OPEN_TREE_CLONE | kernel.AT_RECURSIVE)
    image = not _is_block(holder)
    device, keep = attach_loop(holder) if image else (os.path.realpath(holder), -1)
    try:
        whole = _mount_device(device, readonly=readonly)
    finally:
        if keep >= 0:
            os.close(keep)  # autoclear: the mount holds the loop device from here on
    if not inside:
        return whole
    try:
        return _subtree(whole, inside)
    finally:
        os.close(whole)


def _subtree(whole: int, inside: str) -> int:
    """The directory `inside` of a detached mount, as a detached mount of its own.

    Linux before 6.15 clones only what is attached in the caller's mount namespace (EINVAL
    else). So that nobody sees it there, a child attaches it in one of its own, and hands
    the clone back (SCM_RIGHTS of unix(7)).
    """
    here, there = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            kernel.unshare()
            kernel.mount_setattr("/", propagation=kernel.MS_PRIVATE, recursive=True)
            kernel.move_mount(whole, "/run")
            clone = kernel.open_tree(f"/run/{inside}")
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", clone))
            there.sendmsg([b"0"], [rights])
        except OSError as error:
            there.send(str(error.errno).encode())
        os._exit(0)
    there.close()
    answer, handed, _, _ = here.recvmsg(16, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    here.close()
    os.waitpid(pid, 0)
    if not handed:
        number = int(answer or errno.EIO)
        raise OSError(number, os.strerror(number), inside)
    (fd,) = struct.unpack("i", handed[0][2])
    return int(fd)


def attach_loop(
    path: str, *, readonly: bool = True, direct: bool = False, announce: str = ""
) -> tuple[str, int]:
    """A loop device on the file `path`, gone with its last user; its node and a descriptor.

    With `direct` it writes past the page cache, where the file system can. In the
    directory `announce` an empty file has its name before it has the file.
    """
    if not os.path.exists("/dev/loop-control"):
        # Where udev makes its static nodes later, opening it loads the module all the same.
        os.mknod("/dev/loop-control", stat.S_IFCHR | 0o660, _LOOP_CONTROL)
    mode = (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC
    backing = os.open(path, mode)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_READ_ONLY if readonly else 0)
    flags |= _LO_FLAGS_DIRECT_IO if direct else 0
    name = os.fsencode(path)[:63]
    config = struct.pack(
        _LOOP_CONFIG, backing, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0, *[0] * 8
    )
    try:
        while True:
            node = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            fd = os.open(node, mode)
            if announce:
                os.makedirs(announce, exist_ok=True)
                os.close(os.open(f"{announce}/{os.path.basename(node)}", os.O_CREAT | os.O_CLOEXEC))
            try:
                fcntl.ioctl(fd, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:  # EBUSY: somebody else was quicker; the next one
                    raise
            else:
                return node, fd
    finally:
        os.close(control)
        os.close(backing)


def _mount_device(device: str, *, readonly: bool) -> int:
    """The file system on a block device as a detached mount."""
    last = OSError(errno.ENODEV, "no file system to try", device)
    for fstype in _candidates(device):
        # Mounted already, and writable: the kernel shares that or nothing (EBUSY), and the
        # attribute of the mount has to do.
        for how in (True, False) if readonly else (False,):
            try:
                return _mount_as(fstype, device, readonly=how)
            except OSError as error:
                if last.errno != errno.EBUSY:
                    last = OSError(error.errno, f"{device} as {fstype}: {error.strerror}", device)
                # ENODEV: not in this kernel. EINVAL: not this file system. EBUSY: see above,
                # or another one has the device.
                if error.errno not in (errno.ENODEV, errno.EINVAL, errno.EBUSY):
                    raise last from error
                if error.errno != errno.EBUSY:
                    break
    raise last


def _mount_as(fstype: str, device: str, *, readonly: bool) -> int:
    context = kernel.fsopen(fstype)
    try:
        kernel.fsconfig(context, kernel.FSCONFIG_SET_STRING, "source", device)
        if readonly:
            kernel.fsconfig(context, kernel.FSCONFIG_SET_FLAG, "ro")
        kernel.fsconfig(context, kernel.FSCONFIG_CMD_CREATE)
        return kernel.fsmount(context)
    finally:
        os.close(context)


def _candidates(device: str) -> tuple[str, ...]:
    """The file system udev found on a device, or all that are allowed."""
    rdev = os.stat(device).st_rdev
    try:
        path = f"/run/udev/data/b{os.major(rdev)}:{os.minor(rdev)}"
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("E:ID_FS_TYPE="):
                    fstype = line.strip().partition("=")[2]
                    return (fstype,) if fstype in FILE_SYSTEMS else ()
    except OSError:
        pass
    return FILE_SYSTEMS


def is_mounted(where: str, source: str) -> bool:
    """Whether `where` shows the file system on the device, or in the image, that `source` names."""
    holder, inside = split(source)
    try:
        mounted = os.stat(where).st_dev
        if _is_block(holder):
            return mounted == os.stat(holder).st_rdev and (
                not inside or (where != "/" and _root_of(where).endswith("/" + inside.strip("/")))
            )
        number = f"{os.major(mounted)}:{os.minor(mounted)}"
        with open(f"/sys/dev/block/{number}/loop/backing_file", encoding="utf-8") as file:
            return file.read().rstrip("\n") == holder
    except OSError:
        return False


def _root_of(where: str) -> str:
    from immud.early import mountinfo  # noqa: PLC0415 - for sub-paths alone

    entry = mountinfo.top(mountinfo.read(), where)
    return entry.root if entry else ""


def _is_block(path: str) -> bool:
    return os.stat(path).st_mode & 0o170000 == 0o060000


def probe_usr(fd: int, seconds: int) -> str:
    """Why the detached /usr cannot run this machine, or the empty string.

    Its own Python is started from it in a private namespace and says whether
    modules for the running kernel, immud and its libraries are there. Takes at
    most `seconds`.
    """
    said, say = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(say, 1)
            os.dup2(say, 2)
            kernel.unshare()
            kernel.mount_setattr("/", propagation=kernel.MS_PRIVATE, recursive=True)
            kernel.move_mount(fd, "/usr")
            os.execve(command()[0], command("probe"), {})
        except OSError as error:
            os.write(1, f"its python3 cannot be started: {error}".encode())
        os._exit(1)
    os.close(say)
    pidfd = os.pidfd_open(pid)
    ready, _, _ = select.select([pidfd], [], [], seconds)
    if not ready:
        os.kill(pid, 9)
    _, status = os.waitpid(pid, 0)
    text = os.read(said, 4096).decode("utf-8", "replace").strip() if status else ""
    os.close(said)
    os.close(pidfd)
    if not ready:
        return f"its python3 did not answer in {seconds} s"
    return (text.split("\n")[-1] or f"its python3 ended with status {status}") if status else ""


def check_usr() -> str:
    """The other half of the probe, run by the other /usr's own Python: what it lacks."""
    from importlib.util import find_spec  # noqa: PLC0415 - only in the probe's own process

    release = os.uname().release
    if not os.path.isdir(f"/usr/lib/modules/{release}"):
        return f"it has no modules for the running kernel {release}"
    for name in ("immud", "pystemd", "dbus_next", "pyudev", "structlog"):
        if find_spec(name) is None:
            return f"it lacks the Python library {name}"
    return ""


def systemd_of(usr: str) -> tuple[int, bytes]:
    """What tells one systemd from another: the size and the head of PID 1's binary in `usr`."""
    with open(f"{usr}/lib/systemd/systemd", "rb") as file:
        return os.fstat(file.fileno()).st_size, file.read(1 << 20)
