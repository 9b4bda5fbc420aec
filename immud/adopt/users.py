"""Who could write in a directory without anybody noticing: found in /proc.

Files open for writing or mapped so, directories that are open, and processes that work in it: all
of these keep to the directory they know, whatever its name comes to stand for.
"""

import os
import stat
from collections.abc import Iterator

from immud.model import Holder
from immud.processes import command, read, unit
from immud.tomb.holders import sentence

_MAP_FIELDS = 6  # address, permissions, offset, device, inode, path: proc_pid_maps(5)


def of(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Each process that could write below one of `paths`, in a few words."""
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        if pid == os.getpid():
            continue
        try:
            how = next(_ways(pid, paths), "")
            if how and (name := command(pid)):
                uid = os.stat(f"/proc/{pid}").st_uid
                holder = Holder(pid, uid, name, unit(pid), how)
                found.append(sentence([holder]))
        except OSError:
            continue  # it ended while we looked
    return tuple(found)


def _ways(pid: int, paths: tuple[str, ...]) -> Iterator[str]:
    for name, how in (("cwd", "working directory"), ("root", "root directory")):
        if _below(os.readlink(f"/proc/{pid}/{name}"), paths):
            yield how
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            name = os.readlink(f"/proc/{pid}/fd/{fd}")
            if _below(name, paths) and _writes(pid, fd):
                yield f"open: {name}"
        except FileNotFoundError:
            continue  # it was closed meanwhile
    for line in read(f"/proc/{pid}/maps").splitlines():
        fields = line.split(maxsplit=_MAP_FIELDS - 1)
        shared = len(fields) == _MAP_FIELDS and "w" in fields[1] and "s" in fields[1]
        if shared and _below(fields[5], paths):
            yield f"mapped: {fields[5]}"


def _writes(pid: int, fd: str) -> bool:
    """Whether a file is open for writing, or is a directory, in which files can be made."""
    if stat.S_ISDIR(os.stat(f"/proc/{pid}/fd/{fd}").st_mode):
        return True
    for line in read(f"/proc/{pid}/fdinfo/{fd}").splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _below(name: str, paths: tuple[str, ...]) -> bool:
    return any(name == path or name.startswith(f"{path}/") for path in paths)
