"""Who sees something else at a path than everybody does.

A service started with `ProtectHome=` has a mount namespace of its own with
something mounted over /home. It keeps that after the exchange, over the
directory that has moved, until it is started again.
"""

import os

from immud.adopt.facts import View
from immud.early import mountinfo
from immud.early.mountinfo import MountEntry
from immud.processes import command, unit

_Seen = tuple[str, str, str, bool]


def others(paths: tuple[str, ...], mounts: tuple[MountEntry, ...]) -> tuple[View, ...]:
    """One process for each other mount namespace that differs from `mounts` at one of `paths`."""
    usual = {_seen(mount) for mount in mounts}
    namespaces = {os.readlink("/proc/self/ns/mnt")}
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace in namespaces:
                continue
            namespaces.add(namespace)
            theirs = {mount.target for mount in mountinfo.read(pid) if _seen(mount) not in usual}
            # Without a name it has ended, and its view with it.
            if name := unit(pid) or command(pid):
                found += [View(path, pid, name) for path in paths if path in theirs]
        except OSError:
            continue  # it ended while we looked: ENOENT, ESRCH, or EINVAL of its mountinfo
    return tuple(found)


def _seen(mount: MountEntry) -> _Seen:
    return (mount.target, mount.dev, mount.root, mount.read_only)
