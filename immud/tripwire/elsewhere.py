"""The mount namespaces of other processes, which notify nobody: looked at from a child.

The quick part asks, through /proc/PID/root, whether a namespace that shows a protected tree
may write to it; it costs the same however many mounts there are. The thorough part reads the
whole table of each.
"""

import os
from collections.abc import Iterator
from contextlib import suppress

from immud.early import mountinfo, namespaces
from immud.model import Breach
from immud.processes import command, unit
from immud.tripwire.rule import Broken, Expected, judge_other

Sight = tuple[str, str, str, str, int, int, str, str]
"""kind, path, expected, actual, namespace, pid, command and unit, as marshal takes it."""


def others() -> Iterator[tuple[int, int]]:
    """(inode number, one process) of every mount namespace but our own."""
    seen = {os.stat("/proc/self/ns/mnt").st_ino}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                namespace = os.stat(f"/proc/{name}/ns/mnt").st_ino
                if namespace not in seen:
                    seen.add(namespace)
                    yield namespace, int(name)


def survey(expected: Expected, thorough: bool, leases: str = namespaces.LEASES) -> list[Sight]:
    """The breaches in all other namespaces. For a child: a dying disk may make it wait."""
    os.nice(10)
    protected = [tree.path for tree in expected.trees if tree.read_only]
    here = {path: _identity(path) for path in protected}
    found: list[Sight] = []
    for namespace, pid in others():
        broken = list(_writable(pid, namespace, here))
        if thorough:
            broken += _ways_in(pid, namespace, expected)
        # Asked last, so that a lease that began meanwhile counts.
        if broken and not namespaces.is_leased(namespace, pid, leases):
            who = command(pid), unit(pid)
            found += [
                (str(b.kind), b.path, b.expected, b.actual, namespace, pid, *who) for b in broken
            ]
    return found


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _writable(pid: int, namespace: int, here: dict[str, tuple[int, int]]) -> Iterator[Broken]:
    for path, identity in here.items():
        with suppress(OSError):
            place = f"/proc/{pid}/root{path}"
            if _identity(place) == identity and not os.statvfs(place).f_flag & os.ST_RDONLY:
                yield Broken(Breach.WRITABLE, path, "read-only", "writable", namespace)


def _ways_in(pid: int, namespace: int, expected: Expected) -> Iterator[Broken]:
    try:
        entries = mountinfo.read(pid)
    except OSError:
        return  # it has ended, which is fine
    known = {tree.path for tree in expected.trees} | {"/"}
    for entry in entries:
        if entry.target in known:
            continue
        broken = judge_other(expected, entry, namespace=namespace)
        # Asked last, of the few: it goes through the whole table.
        if broken and mountinfo.top(entries, entry.target) is entry:
            yield broken
