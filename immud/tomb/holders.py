"""Who keeps a file system from going: found in /proc, named, and ended where asked.

By whole control group where that is somebody's session, their user manager or
a container, because half a session is of no use to anybody; by process for
anything else. Never PID 1, never this daemon.
"""

import asyncio
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from immud.child import in_child
from immud.model import Holder
from immud.processes import cgroup_of, command, read, unit_of, whole
from immud.tomb.fs import mounts
from immud.watch import statmount

Device = tuple[int, int]
# pid, uid, command, cgroup, how: what marshal carries back from the child.
Found = tuple[int, int, str, str, str]

CGROUP_ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")


def maps_name(text: str, devices: Iterable[Device]) -> bool:
    """Whether a `/proc/PID/maps` shows a file of one of `devices` (proc_pid_maps(5))."""
    return any(f" {major:02x}:{minor:02x} " in text for major, minor in devices)


def sentence(holders: Iterable[Holder]) -> str:
    """The holders as people name them: `bash (pid 77, session-3.scope, cwd)`."""
    named = [
        f"{h.command} ({', '.join(filter(None, (f'pid {h.pid}' * bool(h.pid), h.unit, h.how)))})"
        for h in holders
    ]
    return ", ".join(named[:8]) + (f" and {len(named) - 8} more" if len(named) > 8 else "")


def _processes() -> Iterator[int]:
    spared = {1, os.getpid(), os.getppid()}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in spared:
            yield int(name)


class _Wanted(NamedTuple):
    """What counts as held: these devices and mounts, and what is below these prefixes.

    That, unless it is on a spared device or mount. Mounts are known by their numbers for
    the files on them that have other device numbers (`mounts.numbers`). Whoever is in one of the
    mount `namespaces` holds it too.
    """

    devices: frozenset[Device]
    mounts: frozenset[int]
    prefixes: tuple[str, ...]
    spared: frozenset[Device]
    spared_mounts: frozenset[int]
    namespaces: frozenset[str]
    maps: bool


def _on(path: str, wanted: _Wanted) -> bool:
    """Whether a magic link of /proc leads to what is wanted."""
    text = ""
    if not wanted.devices:
        text = os.readlink(path)
        # Most links end here, without the file being looked at.
        if not text.startswith(wanted.prefixes):
            return False
    try:
        mount, device, itself = statmount.where(path)
    except FileNotFoundError:
        raise
    except OSError:
        # Of an xfs that has shut down, as it does without its drive, nothing more is told.
        return statmount.mount_of(path) in wanted.mounts
    if mount in wanted.mounts or (itself or device) in wanted.devices:
        return True
    if mount in wanted.spared_mounts or device in wanted.spared or not wanted.prefixes:
        return False
    text = text or os.readlink(path)
    return any(text == prefix or text.startswith(f"{prefix}/") for prefix in wanted.prefixes)


def _how(pid: int, wanted: _Wanted) -> str:
    """How `pid` holds the file system, or the empty string. Raises OSError if it is gone.

    A kernel thread has no exe, and ends here.
    """
    where = f"/proc/{pid}"
    for name in ("exe", "cwd", "root"):
        if _on(f"{where}/{name}", wanted):
            return name
    for fd in os.listdir(f"{where}/fd"):
        with suppress(FileNotFoundError):
            if _on(f"{where}/fd/{fd}", wanted):
                return "open file"
    if wanted.maps and maps_name(read(f"{where}/maps"), wanted.devices):
        return "mapped file"
    inside = wanted.namespaces and os.readlink(f"{where}/ns/mnt") in wanted.namespaces
    return "mount namespace" if inside else ""


def pair(number: str) -> Device:
    """`8:1` as (8, 1)."""
    major, minor = number.split(":")
    return int(major), int(minor)


def _numbers(devices: Iterable[Device]) -> list[str]:
    return [f"{major}:{minor}" for major, minor in devices]


def scan(
    devices: list[Device],
    prefixes: list[str],
    namespaces: bool = False,
    maps: bool = True,
    spared: Iterable[Device] = (),
    *,
    detached: Iterable[int] = (),
) -> list[Found]:
    """In a child: who holds a file system on one of `devices`; `find` has the rest.

    Without `maps`, those who merely mapped a file are not looked for: that takes
    as long as all the rest, and they are few. What is on a `spared` device does not
    count although it is below one of `prefixes`. `detached` are mounts of it that
    may be in no table any more, as `mounts.numbers` gave them before.
    """
    numbers, untouched = _numbers(devices), _numbers(spared)
    # To spare a file system on a block device, whose number its files have, takes no table; and
    # an opening tomb waits for this.
    needed = devices or any(map(mounts.anonymous, untouched))
    tables = list(mounts.tables().items()) if needed else []
    now = {number for _, entries in tables for number in mounts.numbers(numbers, entries)}
    wanted = _Wanted(
        frozenset(devices),
        frozenset({*now, *detached}),
        tuple(prefixes),
        frozenset(spared),
        frozenset(n for _, entries in tables for n in mounts.numbers(untouched, entries)),
        frozenset(
            name for name, entries in tables[1:] if namespaces and mounts.of(numbers, entries)
        ),
        maps,
    )
    found = _look(wanted)
    while found and (reused := _reused(numbers, wanted.mounts)):
        # What was found by it may be anybody.
        wanted = wanted._replace(mounts=wanted.mounts - reused)
        found = _look(wanted)
    return found


def _reused(numbers: list[str], ids: frozenset[int]) -> set[int]:
    """Those of the mounts `ids` that are gone, and whose numbers other mounts have now.

    The kernel gives the lowest that is free; that of a mount which somebody holds is not.
    """
    return {
        entry.id
        for entries in mounts.tables().values()
        for entry in set(entries) - set(mounts.of(numbers, entries))
        if entry.id in ids
    }


def _look(wanted: _Wanted) -> list[Found]:
    """Who holds what is wanted."""
    found = []
    for pid in _processes():
        # A process may end at any time, and one that is gone holds nothing.
        with suppress(OSError):
            if how := _how(pid, wanted):
                uid = os.stat(f"/proc/{pid}").st_uid
                cgroup = cgroup_of(read(f"/proc/{pid}/cgroup"))
                found.append((pid, uid, command(pid), cgroup, how))
    return found


class Holders:
    """The processes that hold a set of devices, at one moment."""

    def __init__(self, found: Iterable[Found]) -> None:
        self._found = tuple(found)

    @property
    def values(self) -> tuple[Holder, ...]:
        return tuple(
            Holder(pid, uid, command, unit_of(cgroup), how)
            for pid, uid, command, cgroup, how in self._found
        )

    def __bool__(self) -> bool:
        return bool(self._found)

    def groups(self) -> frozenset[str]:
        """The control groups that are to end as a whole, never one this daemon is in."""
        ours = cgroup_of(read("/proc/self/cgroup")) + "/"
        found = {whole(cgroup) for _, _, _, cgroup, _ in self._found} - {""}
        return frozenset(group for group in found if not ours.startswith(f"{group}/"))

    @property
    def cgroups(self) -> frozenset[str]:
        return frozenset(cgroup for _, _, _, cgroup, _ in self._found)

    async def one_ends(self, seconds: float) -> None:
        """Wait until one of them has ended, or for so long."""
        fds = _pidfds({pid for pid, *_ in self._found})
        try:
            if len(fds) == len(self._found):
                await _ended(fds, seconds, enough=1)
        finally:
            for fd in fds:
                os.close(fd)

    async def end(self, number: int, seconds: float) -> bool:
        """Send `number` to all, wait up to `seconds` for their end; whether all have ended."""
        pids = {pid for pid, *_ in self._found}
        for group in self.groups():
            pids |= _end_group(group, number)
        fds = _pidfds(pids)
        try:
            for fd in fds:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, number)
            return await _ended(fds, seconds)
        finally:
            for fd in fds:
                os.close(fd)


def _end_group(group: str, number: int) -> set[int]:
    """The processes of a control group, which are all killed at one blow where that is possible."""
    for root in CGROUP_ROOTS:
        where = root + group
        if os.path.isdir(where):
            pids = set()
            for directory, _, _ in os.walk(where):
                with suppress(OSError):
                    pids |= {int(pid) for pid in read(f"{directory}/cgroup.procs").split()}
            if number == signal.SIGKILL:
                # Linux 5.14, cgroup v2; otherwise one by one, as the caller does anyway.
                with suppress(OSError), open(f"{where}/cgroup.kill", "w", encoding="ascii") as file:
                    file.write("1")
            return pids - {0, 1, os.getpid()}
    return set()


def _pidfds(pids: Iterable[int]) -> list[int]:
    """A pidfd for each that has not ended."""
    fds = []
    for pid in pids:
        with suppress(OSError):
            fds.append(os.pidfd_open(pid))
    return fds


async def _ended(fds: list[int], seconds: float, enough: int = 0) -> bool:
    """Wait for processes to end, by their pidfds: for `enough` of them, or for all."""
    loop = asyncio.get_running_loop()
    waiting = set(fds)
    all_ended = asyncio.Event()

    def one(fd: int) -> None:
        loop.remove_reader(fd)
        waiting.discard(fd)
        if not waiting or 0 < enough <= len(fds) - len(waiting):
            all_ended.set()

    for fd in fds:
        loop.add_reader(fd, one, fd)
    try:
        async with asyncio.timeout(seconds):
            if waiting:
                await all_ended.wait()
    except TimeoutError:
        return False
    finally:
        for fd in waiting:
            loop.remove_reader(fd)
    return True


async def find(
    devices: Iterable[Device], *, namespaces: bool = True, detached: Iterable[int] = ()
) -> Holders:
    """Who holds a file system on one of `devices`, in this and all other mount namespaces.

    `detached` as for `scan`. The search runs in a child: a process of a hung network file
    system may block it.
    """
    found = await in_child(_find, list(devices), namespaces, list(detached), timeout=10)
    return Holders(found)


def _find(devices: list[Device], namespaces: bool, detached: list[int]) -> list[Found]:
    """In a child."""
    return scan(devices, [], namespaces, detached=detached)
