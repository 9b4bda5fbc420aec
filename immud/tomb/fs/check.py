"""Looking at a file system before it is mounted, and repairing what is safe to repair.

ext4 and f2fs have a checker; fsck.xfs(8) and fsck.btrfs(8) do nothing, for the
log is replayed by the mount: they are not run. ext4's checker leaves at once
where the superblock says that all is well, and so it need not be started for
that: on a slow machine it is a fifth of the time an opening takes.
"""

import os
import re
import struct
import time
from collections.abc import Callable

from immud.courtesy import waiting
from immud.errors import ImmudError
from immud.run import CommandFailed, run
from immud.tomb.drives import drive
from immud.tomb.fs.filesystems import FILE_SYSTEMS

Progress = Callable[[float], None]

TIMEOUT = 24 * 3600.0

# fsck(8): bits of its exit status that say that all is well now; any other leaves damage.
CORRECTED = 1 | 2
_ENDINGS = tuple(range(256))

# The disk layout of ext4 (Documentation/filesystems/ext4/super.rst).
_SUPERBLOCK = 1024
_COUNTS = struct.Struct("<HhHH")  # at 0x34: mounts since, mounts at most, magic, state
_TIMES = struct.Struct("<II")  # at 0x40: last check, seconds between checks
_FEATURES = struct.Struct("<II")  # at 0x60: incompatible, read-only compatible
_MAGIC = 0xEF53
_VALID, _ERRORS = 1, 2
_NEEDS_RECOVERY = 0x4
_ORPHANS_PRESENT = 0x10000
_ORPHAN = struct.Struct("<I")  # at 0xE8: the first inode that was deleted while it was open

# What each pass of e2fsck takes of the whole, percent, as its own progress bar has it.
_PASSES = (0, 70, 90, 92, 95, 100)
_PROGRESS = re.compile(rb"([1-5]) (\d+) (\d+) /\S*\n")
_UNEXPECTED = re.compile(rb"[^\x20-\x7e]+")


def sound(superblock: bytes, now: int) -> bool:
    """Whether `e2fsck -p` would leave an ext4 with this superblock at once, as clean.

    That is the rule of its check_if_skip(): closed properly, no errors on record,
    not due by count or time (unix.c). `now` is in seconds since 1970.
    """
    mounts, most, magic, state = _COUNTS.unpack_from(superblock, 0x34)
    checked, interval = _TIMES.unpack_from(superblock, 0x40)
    incompatible, compatible = _FEATURES.unpack_from(superblock, 0x60)
    return bool(
        magic == _MAGIC
        and state & (_VALID | _ERRORS) == _VALID
        and not incompatible & _NEEDS_RECOVERY
        and not compatible & _ORPHANS_PRESENT
        and (most <= 0 or mounts < most)
        and (not interval or 0 <= now - checked < interval)
    )


def tidied(superblock: bytes) -> bool:
    """Whether mounting an ext3 or ext4 with this superblock may write to it, noload or not.

    The kernel deletes what was deleted while it was open, although read-only is said, unless
    the device takes no writes (ext4_orphan_cleanup()). Without the log, that is done to a state
    which the log overwrites in part later. Where there is a file for such inodes, only a flag
    in the superblock tells that it may have some.
    """
    _, compatible = _FEATURES.unpack_from(superblock, 0x60)
    (orphan,) = _ORPHAN.unpack_from(superblock, 0xE8)
    return bool(orphan or compatible & _ORPHANS_PRESENT)


def would_be_tidied(fstype: str, devnode: str) -> bool:
    """Whether mounting what is on a device may do that. Reads the device: for a child."""
    if fstype not in ("ext3", "ext4") or drive.read_only(drive.number_of(devnode)):
        return False
    try:
        return tidied(_superblock(devnode, os.O_EXCL))
    except OSError:
        # EBUSY: it is mounted, and that was done then. Any other the mount will meet as well.
        return False


def is_sound(fstype: str, devnode: str) -> bool:
    """Whether the checker of the file system on a device has nothing to do.

    Reads the device: for a child. Raises OSError where it cannot be read.
    """
    if not FILE_SYSTEMS[fstype].checker:
        return True
    if fstype != "ext4":
        return False
    return sound(_superblock(devnode), int(time.time()))


def _superblock(devnode: str, flags: int = 0) -> bytes:
    """That of an ext4; zeros, which are none, where the device is too short to have one."""
    fd = os.open(devnode, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        return os.pread(fd, 1024, _SUPERBLOCK).ljust(1024, b"\0")
    finally:
        os.close(fd)


class Passes:
    """Makes fractions of the lines `e2fsck -C` writes, and keeps the last of what else it says."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._line = b""
        self._last = -1.0
        self.said = b""

    def heard(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        # A message may have been cut in two by a line of progress, or be without an end.
        self._line = self._line[-4096:]
        for line in lines:
            if match := _PROGRESS.fullmatch(line + b"\n"):
                self._tell(int(match[1]), int(match[2]), int(match[3]))
            elif line.strip():
                self.said = (self.said + b"\n" + line)[-4096:]

    def _tell(self, number: int, at: int, most: int) -> None:
        begin, end = _PASSES[number - 1], _PASSES[number]
        part = min(at / most, 1.0) if most else 1.0
        # In hundredths, or a large file system would be heard of a thousand times.
        fraction = round((begin + (end - begin) * part) / 100, 2)
        if fraction > self._last:
            self._last = fraction
            self._progress(fraction)

    @property
    def reason(self) -> str:
        """What it said last that says something, as a line that is safe to show."""
        # The sentence it stops at has no end; what follows goes to standard error.
        lines = (self.said + b"\n" + self._line).split(b"\n")
        text = next((line for line in reversed(lines) if line.strip()), b"")
        text = re.sub(rb"^/\S+: ", b"", text)
        return _UNEXPECTED.sub(b"?", text).decode().strip().rstrip(".")[:200]


async def check(fstype: str, devnode: str, progress: Progress) -> str:
    """Run the checker; it repairs what is safe to. Returns what it left damaged, or nothing.

    Raises ImmudError where it cannot be run.
    """
    checker = FILE_SYSTEMS[fstype].checker
    passes = Passes(progress)
    extra = ("-C", "1") if fstype == "ext4" else ()
    argv = (checker, "-a", *extra, devnode)
    try:
        with waiting():
            result = await run(*argv, allowed=_ENDINGS, timeout=TIMEOUT, heard=passes.heard)
    except CommandFailed as error:
        if error.code == 127:
            package = "e2fsprogs" if fstype == "ext4" else f"{fstype}-tools"
            raise ImmudError(f"{checker} is missing; install the package {package}.") from error
        if error.code < 0:
            # Brought down by what it found: that is no file system to write to.
            return str(error).rstrip(".")
        raise
    if result.code & ~CORRECTED:
        return passes.reason or f"{checker} ended with status {result.code}"
    return ""
