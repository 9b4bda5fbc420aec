"""How the file system of an open tomb is doing, as the kernel shows it.

An ext4, btrfs or f2fs that finds itself damaged becomes read-only as a whole,
which wakes nobody who waits for the mount table; an xfs shuts down, and every
access fails. Both are said in the kernel's log: see `immud.watch.kmsg`.
"""

import errno
import os
from dataclasses import dataclass
from enum import StrEnum

from immud.early import mountinfo
from immud.early.mountinfo import MountEntry
from immud.model import TombConfig
from immud.tomb.drives import drive
from immud.tomb.fs.filesystems import FILE_SYSTEMS
from immud.tomb.luks import dm


class Fault(StrEnum):
    """What is wrong with an open file system."""

    NONE = ""
    READ_ONLY = "read-only"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Health:
    """The file system of an open tomb; empty where none is open.

    `stale` where its log was not replayed: it is as it was some time before it was used last.
    """

    fs_type: str = ""
    read_only: bool = False
    fault: Fault = Fault.NONE
    stale: bool = False


# How a superblock says that nothing can be written. What was an error's doing ext4 does not say
# at all in Linux 6.12 to 6.14, and in words of its own since then.
_STOPPED = frozenset({"ro", "emergency_ro"})
_UNWRITTEN = frozenset({"noload"}.union(*(one.unwritten for one in FILE_SYSTEMS.values())))


def of(
    entry: MountEntry | None, *, mapped_read_only: bool, down: bool = False, errors: int = 0
) -> Health:
    """The health of the file system mounted as `entry`, with as many errors on record. Pure.

    Whoever wants it read-only has its mapping read-only: a superblock that is so
    on a writable mapping is the work of errors.
    """
    if entry is None:
        return Health()
    words = set(entry.super_options.split(","))
    stopped = bool(words & _STOPPED or (errors and "errors=remount-ro" in words))
    fault = Fault.NONE
    if down or "shutdown" in words:
        fault = Fault.DOWN
    elif stopped and not mapped_read_only:
        fault = Fault.READ_ONLY
    return Health(entry.fstype, stopped or entry.read_only, fault, bool(words & _UNWRITTEN))


def look(mapping: dm.Mapping | None, target: str, *, down: bool = False) -> Health:
    """The health of what is mounted from `mapping` at `target`."""
    if mapping is None:
        return Health()
    entry = mountinfo.top(mountinfo.read(), target)
    return of(
        entry,
        mapped_read_only=drive.read_only(mapping.number),
        down=down,
        errors=_errors(mapping.nodes[1]) if entry and entry.fstype == "ext4" else 0,
    )


def _errors(node: str) -> int:
    """How many errors an ext4 has on record, which a checker takes off it."""
    try:
        path = f"/sys/fs/ext4/{os.path.basename(node)}/errors_count"
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def is_down(target: str) -> bool:
    """In a child, for it may sleep: whether the file system at `target` has shut down."""
    try:
        os.close(os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (errno.EIO, errno.EUCLEAN)
    return False


def repair(config: TombConfig, devnode: str, fstype: str) -> str:
    """What a person runs to repair a file system: one line for a shell."""
    name = f"{config.name}-repair"
    key = f" --key-file {config.key}" if config.key.startswith("/") else ""
    volume, before, after = devnode, "", ""
    if config.file:
        volume, before, after = f"/mnt/{config.file}", f"mount {devnode} /mnt; ", "umount /mnt; "
    return (
        f"to repair it, run: immud close {config.name}; {before}"
        f"cryptsetup open{key} {volume} {name} && "
        f"{FILE_SYSTEMS[fstype].repair} /dev/mapper/{name}; "
        f"cryptsetup close {name}; {after}immud open {config.name}"
    )


def sentence(health: Health, damage: str, how: str) -> str:
    """What a person is told of a fault; empty where there is none. `how` is `repair`'s."""
    if health.fault is Fault.DOWN:
        return (
            "its file system found errors and has shut down: nothing on it can be read or "
            f"written until it is opened again. If that does not help, {how}"
        )
    if health.fault is Fault.READ_ONLY:
        why = f" ({damage})" if damage else ""
        return f"it is read-only, for its file system has errors{why}; {how}"
    return ""
