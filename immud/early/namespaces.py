"""Mount namespaces that were there before: the attribute has to be brought to them.

A mount put in place propagates to namespaces that are slaves of the host's; an
attribute set on one mount never does (mount_setattr(2)). What started before
immud with a namespace of its own would keep a writable / for as long as it runs.
"""

import os

from immud.early import kernel, mountinfo

LEASES = "/run/immud/leases"


def others() -> list[str]:
    """One process of every mount namespace but our own, as /proc paths of the namespaces."""
    seen = {os.readlink("/proc/self/ns/mnt")}
    found = []
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        path = f"/proc/{pid}/ns/mnt"
        try:
            name = os.readlink(path)
        except OSError:
            continue  # it has ended, which is fine
        if name not in seen:
            seen.add(name)
            found.append(path)
    return found


def is_leased(namespace: int, pid: int | str, leases: str = LEASES) -> bool:
    """Whether the mount namespace with this inode number, in which `pid` is, is writable on
    purpose: a lease's own (see immud.lease), or one that something in a lease has made.
    """
    try:
        ids = [name for name in os.listdir(leases) if not name.startswith(".")]
    except OSError:
        return False
    for id in ids:
        try:
            with open(f"{leases}/{id}/mnt-ns", encoding="ascii") as file:
                if int(file.read()) == namespace:
                    return True
        except (OSError, ValueError):
            continue  # it has ended
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            groups = file.read().replace("\n", "/").split("/")
    except OSError:
        return False
    return any(f"immud-lease-{id}.service" in groups for id in ids)


def follow(legacy: bool = False) -> None:
    """Set / read-only in every other mount namespace that shows the same / writable.

    Where /etc or /var did not arrive (a private namespace), / is left alone, or
    its service could not write to them any more. One child goes through them all:
    each fork costs as much as the three mounts together.
    """
    root = os.stat("/")
    found = others()
    if not found:
        return
    pid = os.fork()
    if pid == 0:
        # setns(2) needs a process with one thread: this one has no other.
        try:
            _follow_all(found, root, legacy)
        finally:
            os._exit(0)  # whatever happens, the child never goes on as the daemon
    os.waitpid(pid, 0)


def _follow_all(found: list[str], root: os.stat_result, legacy: bool) -> None:
    """Enter one namespace after the other, in a child that does not come back."""
    # All are opened first: the /proc of another namespace may be another one.
    opened = []
    for path in found:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # it has ended, which is fine
        if not is_leased(os.fstat(fd).st_ino, path.split("/")[2]):
            opened.append(fd)
    for fd in opened:
        try:
            kernel.setns(fd)
            _follow_here(root, legacy)
        except OSError:
            continue  # it keeps what it has, and the others are still to come


def _follow_here(root: os.stat_result, legacy: bool) -> None:
    here = os.stat("/")
    if (here.st_dev, here.st_ino) != (root.st_dev, root.st_ino):
        return
    if os.statvfs("/").f_flag & os.ST_RDONLY:
        return
    entries = mountinfo.read()
    if not all(mountinfo.top(entries, path) for path in ("/etc", "/var")):
        return
    if legacy:
        kernel.mount(None, "/", None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY)
    else:
        kernel.mount_setattr("/", set_=kernel.MOUNT_ATTR_RDONLY)


def writers() -> tuple[str, ...]:
    """Processes with a file open for writing through the mount at /, as `name[pid] path`.

    fdinfo names the mount a descriptor was opened through (proc_pid_fdinfo(5)).
    """
    root = mountinfo.top(mountinfo.read(), "/")
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for number in os.listdir(f"/proc/{pid}/fdinfo"):
                with open(f"/proc/{pid}/fdinfo/{number}", encoding="utf-8") as file:
                    info = dict(line.split(":", 1) for line in file if ":" in line)
                writable = int(info["flags"], 8) & os.O_ACCMODE
                if writable and root and int(info.get("mnt_id", 0)) == root.id:
                    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                        name = file.read().strip()
                    found.append(f"{name}[{pid}] {os.readlink(f'/proc/{pid}/fd/{number}')}")
        except (OSError, KeyError, ValueError):
            continue  # it has ended, or the descriptor is closed
    return tuple(found)
