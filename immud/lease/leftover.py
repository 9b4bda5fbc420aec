"""What runs in a lease's namespace after the lease, and must not: / and /usr are writable there.

PID 1 ends the service's control group. A process that was given another one has left that: by
logind, as with the session that su(1) opens, or by `systemd-run --scope`.
"""

import _signal  # type: ignore[import-not-found]  # signal brings enum
import os
import select
import time

from immud.lease import record
from immud.lease.begin import locked

SECONDS = 2.0
"""For all of it: PID 1 waits for the end of a lease, which has files to list as well."""


def kill(namespace: int, id: str) -> list[str]:
    """Kill what is in `namespace` (an inode number), the mount namespace of lease `id`; its names.

    A process that ignores even that, in the hands of a disk that hangs, is not waited for.
    """
    held = _hold(namespace)
    if held < 0:
        return []
    if _is_another_s(namespace, id):
        os.close(held)
        return []
    names = []
    until = time.monotonic() + SECONDS
    try:
        # Again and again: one that was not seen may have begun others.
        while (found := _find(namespace)) and time.monotonic() < until:
            names += _kill(found, until)
    finally:
        os.close(held)
    return names


def _pids(namespace: int) -> list[int]:
    spared = {1, os.getpid()}
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if pid not in spared and _is_in(pid, namespace)]


def _is_in(pid: int, namespace: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino == namespace
    except OSError:
        return False  # it has ended


def _find(namespace: int) -> list[tuple[int, int]]:
    """(pidfd, pid) of what is in it: asked again once the pidfd says whose number it is."""
    found = []
    for pid in _pids(namespace):
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            continue  # it has ended
        if _is_in(pid, namespace):
            found.append((fd, pid))
        else:
            os.close(fd)
    return found


def _kill(found: list[tuple[int, int]], until: float) -> list[str]:
    names = []
    waiting = select.poll()
    for fd, pid in found:
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                name = file.read().rstrip("\n")
            _signal.pidfd_send_signal(fd, _signal.SIGKILL)
        except OSError:
            continue  # it has ended
        names.append(name)
        waiting.register(fd, select.POLLIN)
    left = len(names)
    while left and (ms := int((until - time.monotonic()) * 1000)) > 0:
        for fd, _ in waiting.poll(ms):
            waiting.unregister(fd)
            left -= 1
    for fd, _ in found:
        os.close(fd)
    return names


def _hold(namespace: int) -> int:
    """A descriptor of the lease's namespace, or -1 where nothing is in it.

    The kernel gives the number of a namespace that is gone to the next one, which may be that
    of a service or of a container. While this is open there is no other of that number.
    """
    for pid in _pids(namespace):
        try:
            fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # it has ended
        if os.fstat(fd).st_ino == namespace:
            if _is_writable(fd):
                return fd
            os.close(fd)
            return -1
        os.close(fd)
    return -1


def _is_another_s(namespace: int, id: str) -> bool:
    """Whether a lease that began right after this one got the number of its namespace.

    It is on record before anything is writable in it, so this is asked after that.
    """
    others = (record.read(name) for name in record.names() if name != id)
    return any(other is not None and other.mnt_ns == namespace for other in others)


def _is_writable(namespace: int) -> bool:
    """Whether / and /usr are writable there and not here, and it shows the same /."""
    from immud.early import kernel  # noqa: PLC0415 - ctypes takes its time

    child = os.fork()
    if child == 0:
        status = 1
        try:
            root, here = os.stat("/"), locked()
            kernel.setns(namespace)
            status = not (os.path.samestat(root, os.stat("/")) and len(locked()) < len(here))
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0
