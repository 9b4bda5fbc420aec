"""Look at this machine, and change nothing. Needs root; most of it works without a daemon."""

import asyncio
import configparser
import glob
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress

from immud.adopt import gpt
from immud.adopt.observe import observe
from immud.adopt.root import open_root
from immud.config.load import examine
from immud.doctor.facts import Home, Room, Seen
from immud.early import mountinfo
from immud.early.plan import Row
from immud.enable.check import check, look
from immud.errors import ImmudError
from immud.model import Config
from immud.run import run
from immud.watch.system import stopped

# Later ones win, as with systemd itself.
_UNIT_DIRECTORIES = ("/usr/lib/systemd/system", "/run/systemd/system", "/etc/systemd/system")
_PROTECTS = re.compile(r"^\s*ProtectHome\s*=\s*(\S+)", re.MULTILINE)
_USERADD = "/etc/default/useradd"
_AUTOMOUNTERS = {
    "autofs.service": "what its maps name (/etc/auto.master)",
    "am-utils.service": "what its maps name",
    "usbmount@.service": "every drive, below /media",
}


def see(root: str = "/") -> Seen:
    """Everything there is to know. Raises ImmudError where the root file system is out of reach."""
    config, errors = examine(root)
    with open_root(lock=False) as tree:
        adoption = observe(tree, config.rows)
    return Seen(
        adoption=adoption,
        problems=check(config, look(config, root), errors),
        protect_home=_protect_home(),
        homes=tuple(_homes(config.rows)),
        new_homes=_new_homes(),
        partitions=gpt.partitions(),
        rooms=tuple(_rooms()),
        automounters=_automounters(),
        modules=tuple(_modules(config)),
        tmp_mount=os.path.ismount("/tmp") and os.path.exists(f"{_UNIT_DIRECTORIES[0]}/tmp.mount"),
    )


def _protect_home() -> Mapping[str, str]:
    """Services and the ProtectHome= of each that asks for one, drop-ins included."""
    found: dict[str, str] = {}
    for directory in _UNIT_DIRECTORIES:
        patterns = (f"{directory}/*.service", f"{directory}/*.service.d/*.conf")
        for path in sorted(path for pattern in patterns for path in glob.glob(pattern)):
            name = os.path.basename(path)
            if os.path.islink(path):
                continue  # another name of one that is there already
            if name.endswith(".conf"):
                name = os.path.basename(os.path.dirname(path)).removesuffix(".d")
            with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
                for value in _PROTECTS.findall(file.read()):
                    found[name] = value
    return {name: value for name, value in found.items() if value not in ("no", "false", "0")}


def _homes(rows: tuple[Row, ...]) -> Iterator[Home]:
    """People's homes behind a link, by passwd(5)."""
    with open("/etc/passwd", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(":")
            if len(fields) < 7 or not fields[2].isdecimal():
                continue
            user, uid, path = fields[0], int(fields[2]), fields[5]
            behind = any(
                row.kind == "link" and os.path.islink(row.path) and path.startswith(row.path + "/")
                for row in rows
            )
            if behind and 1000 <= uid < 60000:
                yield Home(user, uid, path)


def _new_homes() -> str:
    """Where useradd(8) makes homes."""
    parser = configparser.ConfigParser()
    with suppress(OSError, configparser.Error), open(_USERADD, encoding="utf-8") as file:
        parser.read_string("[useradd]\n" + file.read())
    return parser.get("useradd", "HOME", fallback="/home")


def _rooms() -> Iterator[Room]:
    """The file systems boot and logs need, each once."""
    seen = set()
    paths = ("/", "/etc", "/var", "/boot")
    mounts = mountinfo.read()
    dead = stopped(mounts, paths)
    for path in paths:
        with suppress(OSError):
            device, space = os.stat(path).st_dev, os.statvfs(path)
            if device in seen:
                continue
            seen.add(device)
            used = 1 - space.f_bavail / space.f_blocks if space.f_blocks else 0.0
            inodes = 1 - space.f_favail / space.f_files if space.f_files else 0.0
            entry = mountinfo.top(mounts, path)
            yield Room(path, used, inodes, entry is not None and entry.dev in dead)


def _automounters() -> Mapping[str, str]:
    found = {}
    for unit, what in _AUTOMOUNTERS.items():
        if glob.glob(f"/etc/systemd/system/*.wants/{unit}"):
            found[unit] = what
    for path in glob.glob("/etc/systemd/system/*.automount"):
        found[os.path.basename(path)] = "a path on demand"
    return found


def _modules(config: Config) -> Iterator[str]:
    """Kernel modules that the configuration needs and this kernel has not."""
    needed = ["dm_crypt"] if config.tombs else []
    if config.usr != "/usr":
        needed.append("loop")
    for module in needed:
        if os.path.isdir(f"/sys/module/{module}"):
            continue
        try:
            asyncio.run(run("modprobe", "--dry-run", "--quiet", module, timeout=20))
        except ImmudError:
            yield module
