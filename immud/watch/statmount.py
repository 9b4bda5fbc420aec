"""Looking at single mounts: statx(2), statmount(2) and listmount(2), one function each.

Beside `immud.early.kernel` and not in it, because phase 1 needs none of it. glibc in Debian 12
and 13 wraps neither statmount nor listmount (Linux 6.8), so they go through syscall(2).
Structures and names are those of the kernel's own linux/mount.h and linux/stat.h; all integers
are in the machine's order. Every function raises OSError.
"""

import ctypes
import errno
import os
import stat
import struct

from immud.early.mountinfo import MountEntry

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_NO_AUTOMOUNT = 0x800
AT_STATX_DONT_SYNC = 0x4000

STATX_MNT_ID_UNIQUE = 0x4000
STATX_ATTR_MOUNT_ROOT = 0x2000

STATMOUNT_SB_BASIC = 0x01
STATMOUNT_MNT_BASIC = 0x02
STATMOUNT_MNT_ROOT = 0x08
STATMOUNT_MNT_POINT = 0x10
STATMOUNT_FS_TYPE = 0x20
STATMOUNT_SB_SOURCE = 0x200  # Linux 6.14

LSMT_ROOT = 0xFFFF_FFFF_FFFF_FFFF

_SYS_STATMOUNT = 457
_SYS_LISTMOUNT = 458

_SB_RDONLY = 1
# MOUNT_ATTR_*, in the order in which the kernel prints them in mountinfo (show_mnt_opts()).
_OPTIONS = ((0x02, "nosuid"), (0x04, "nodev"), (0x08, "noexec"))
_ATIME, _NOATIME, _NODIRATIME, _NOSYMFOLLOW = 0x70, 0x10, 0x80, 0x200000

_REQUEST = struct.Struct("=IIQQ")  # struct mnt_id_req, MNT_ID_REQ_SIZE_VER0
# struct statmount up to mnt_point, and sb_source further on.
_STATMOUNT = struct.Struct("=IIQIIQIIQQIIQQQQQII")
_SB_SOURCE = struct.Struct("=124xI")
# struct statx: stx_mode, stx_rdev_*, stx_dev_* and stx_mnt_id (Linux 5.8).
_WHERE = struct.Struct("=28xH98x4IQ")
_STRINGS = 512
_MASK = (
    STATMOUNT_SB_BASIC
    | STATMOUNT_MNT_BASIC
    | STATMOUNT_MNT_ROOT
    | STATMOUNT_MNT_POINT
    | STATMOUNT_FS_TYPE
    | STATMOUNT_SB_SOURCE
)
_BATCH = 512

_libc = ctypes.CDLL(None, use_errno=True)


def _fail(about: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), about)


def mount_at(path: str) -> tuple[int, bool]:
    """The unique id of the mount a walk to `path` ends on, and whether `path` is its root.

    A link at the end is not followed, nothing is mounted by looking, no server is asked.
    """
    buffer = ctypes.create_string_buffer(256)
    flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC
    if _libc.statx(AT_FDCWD, os.fsencode(path), flags, STATX_MNT_ID_UNIQUE, buffer):
        raise _fail(path)
    mask, attributes = struct.unpack_from("=I4xQ", buffer)
    if not mask & STATX_MNT_ID_UNIQUE:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
    (number,) = struct.unpack_from("=Q", buffer, 144)
    return number, bool(attributes & STATX_ATTR_MOUNT_ROOT)


def where(path: str) -> tuple[int, tuple[int, int], tuple[int, int] | None]:
    """What the file at the end of `path`, such as a magic link of /proc, is on, and is.

    The number of its mount in mountinfo, `major, minor` of its file system as stat(2) has it,
    and of itself where it is a block device. No server is asked, and nothing is asked for but
    what the kernel tells anyway: a FUSE of somebody else's refuses even root anything more.
    """
    buffer = ctypes.create_string_buffer(256)
    if _libc.statx(AT_FDCWD, os.fsencode(path), AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, 0, buffer):
        raise _fail(path)
    mode, *numbers, mount = _WHERE.unpack_from(buffer)
    itself = (numbers[0], numbers[1]) if stat.S_ISBLK(mode) else None
    return mount, (numbers[2], numbers[3]), itself


def mount_of(path: str) -> int:
    """The number in mountinfo of the mount that the end of `path` is on (proc_pid_fdinfo(5)).

    The file system is not asked at all, and cannot refuse.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            return int(next(line for line in file if line.startswith("mnt_id:")).split()[1])
    finally:
        os.close(fd)


def statmount(number: int) -> MountEntry:
    """The mount with that unique id, as mountinfo would show it.

    `id` and `parent` are the unique ids. `source` is empty where the kernel does not tell it
    (before 6.14), `super_options` say `ro` or `rw` alone. ENOENT where there is none in this
    namespace.
    """
    return _entry(_statmount(number))


def old_number(number: int) -> int:
    """The number of the same mount in mountinfo, which is used again once it is gone."""
    (old,) = struct.unpack_from("=I", _statmount(number), 56)
    return int(old)


def _statmount(number: int) -> bytes:
    request = _REQUEST.pack(_REQUEST.size, 0, number, _MASK)
    size = 4096
    while True:
        buffer = ctypes.create_string_buffer(size)
        if not _libc.syscall(_SYS_STATMOUNT, request, buffer, ctypes.c_size_t(size), 0):
            return buffer.raw
        if ctypes.get_errno() != errno.EOVERFLOW:
            raise _fail(f"mount {number}")
        size *= 2


def listmount(after: int = 0) -> list[int]:
    """The unique ids of all mounts below the root that are greater than `after`, in order."""
    found: list[int] = []
    batch = (ctypes.c_uint64 * _BATCH)()
    while True:
        request = _REQUEST.pack(_REQUEST.size, 0, LSMT_ROOT, after)
        count = _libc.syscall(_SYS_LISTMOUNT, request, batch, ctypes.c_size_t(_BATCH), 0)
        if count < 0:
            raise _fail("listmount")
        found += batch[:count]
        if count < _BATCH:
            return found
        after = found[-1]


def available() -> bool:
    """Whether the kernel has all three, and nothing forbids them.

    IMMUD_MOUNTINFO in the environment says no: for a test of what is done without.
    """
    if "IMMUD_MOUNTINFO" in os.environ:
        return False
    try:
        number, _ = mount_at("/")
        statmount(number)
        listmount(number)
    except OSError:
        return False
    return True


def _entry(data: bytes) -> MountEntry:
    fields = _STATMOUNT.unpack_from(data)
    mask, major, minor, _, super_flags, fstype, number, parent = fields[2:10]
    attributes, root, point = fields[12], fields[17], fields[18]
    source = ""
    if mask & STATMOUNT_SB_SOURCE:
        source = _string(data, *_SB_SOURCE.unpack_from(data))
    return MountEntry(
        id=number,
        parent=parent,
        dev=f"{major}:{minor}",
        root=_string(data, root),
        target=_string(data, point),
        options=_options(attributes),
        fstype=_string(data, fstype),
        source=source,
        super_options="ro" if super_flags & _SB_RDONLY else "rw",
    )


def _string(data: bytes, offset: int) -> str:
    start = _STRINGS + offset
    return os.fsdecode(data[start : data.index(b"\0", start)])


def _options(attributes: int) -> str:
    words = ["ro" if attributes & 0x01 else "rw"]
    words += [word for bit, word in _OPTIONS if attributes & bit]
    atime = attributes & _ATIME
    words += ["noatime"] if atime == _NOATIME else []
    words += ["nodiratime"] if attributes & _NODIRATIME else []
    words += ["relatime"] if atime == 0 else []
    words += ["nosymfollow"] if attributes & _NOSYMFOLLOW else []
    return ",".join(words)
