"""Whether the file systems that the system itself is on take writes, and a hint when to look.

One that finds itself damaged stops taking any, whatever its mounts say: a superblock
that turns read-only wakes nobody who waits for the mount table, but the kernel's log says it.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Iterable
from contextlib import suppress

from immud.early import mountinfo
from immud.early.mountinfo import MountEntry
from immud.watch.kmsg import KernelLog

PATHS = ("/", "/etc", "/var")
# From a word of the kernel to the look, seconds: it is said before it is so, and often.
DOUBT = 0.2
_STOPPED = frozenset({"ro", "emergency_ro", "shutdown"})


def stopped(mounts: tuple[MountEntry, ...], paths: Iterable[str] = PATHS) -> frozenset[str]:
    """The file systems at `paths` that take no writes, as `major:minor`."""
    tops = [entry for path in paths if (entry := mountinfo.top(mounts, path))]
    return frozenset(entry.dev for entry in {e.dev: e for e in tops}.values() if _stopped(entry))


def _stopped(entry: MountEntry) -> bool:
    if _STOPPED & set(entry.super_options.split(",")):
        return True
    # What was an error's doing ext4 does not say in Linux 6.12 to 6.14.
    # There it is tried out, at a mount that does not forbid it itself.
    tried = entry.fstype == "ext4" and not entry.read_only and _errors(entry) > 0
    return tried and not _takes_writes(entry.target)


def _errors(entry: MountEntry) -> int:
    """How many errors an ext4 has on record, of this boot or of one before."""
    with suppress(OSError, ValueError):
        path = f"/sys/fs/ext4/{_name(entry)}/errors_count"
        with open(path, encoding="ascii") as file:
            return int(file.read())
    return 0


def _takes_writes(path: str) -> bool:
    """Whether a file without a name can be made there."""
    try:
        os.close(os.open(path, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        return error.errno not in (errno.EROFS, errno.EIO)
    return True


def _name(entry: MountEntry) -> str:
    """The device's name in the kernel, such as `sda2` or `dm-0`."""
    with suppress(OSError):
        return os.path.basename(os.readlink(f"/sys/dev/block/{entry.dev}"))
    # The number of a btrfs is its own, and its device has the name it was mounted by.
    with suppress(OSError):
        device = os.stat(entry.source).st_rdev
        number = f"{os.major(device)}:{os.minor(device)}"
        return os.path.basename(os.readlink(f"/sys/dev/block/{number}"))
    return os.path.basename(entry.source)


class SystemWatch:
    """Which of them take no writes is `stopped`, after a look.

    One is taken at the start, when the kernel has said something about one of them, and
    where the answer matters; `changed` is called after one that was not asked for.
    Not at each change of the mount table: mountinfo is long where there are many mounts, and
    statmount(2) does not say it.
    """

    def __init__(self, changed: Callable[[], None], kernel_log: KernelLog) -> None:
        self.stopped = frozenset[str]()
        self._changed = changed
        self._kernel_log = kernel_log
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        self.stopped = stopped(mountinfo.read())

    def start(self) -> None:
        mounts = mountinfo.read()
        self.stopped = stopped(mounts)
        tops = [entry for path in PATHS if (entry := mountinfo.top(mounts, path))]
        self._kernel_log.listen(self._heard, frozenset(map(_name, tops)))

    def close(self) -> None:
        self._kernel_log.leave(self._heard)
        if self._timer:
            self._timer.cancel()

    def _heard(self, _device: str) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DOUBT, self._again)

    def _again(self) -> None:
        self._timer = None
        self.look()
        self._changed()
