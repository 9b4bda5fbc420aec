"""Partitions that systemd mounts because of their type alone: systemd-gpt-auto-generator(8).

A line of fstab for the same path keeps it away, and once that names another path it no longer
does: the generator mounts the partition at a link then, which ends in emergency mode. As long as
there is something in the directory, it does not; that may be the work of another system on
the disk. The partition's own flag, no-auto, keeps it away for good.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import suppress

from immud.adopt.facts import Partition
from immud.errors import ImmudError
from immud.run import run

# The Discoverable Partitions Specification: where those of each type are mounted.
TYPES = {
    "933ac7e1-2eb4-4f13-b844-0e14e2aef915": "/home",
    "3b8f8425-20e0-4f3b-907f-1a25a76f98e8": "/srv",
}
_NO_AUTO = 63  # the bit of a partition's attributes
_COLUMNS = "PATH,PKNAME,PARTN,PARTTYPE,PARTFLAGS,MOUNTPOINTS"


def partitions() -> tuple[Partition, ...]:
    """Those of the disk that / is on, which are the ones that it looks at."""
    with suppress(OSError), open("/proc/cmdline", encoding="utf-8") as file:
        words = file.read().split()
        if "systemd.gpt_auto=0" in words or "systemd.gpt_auto=no" in words:
            return ()
    try:
        said = asyncio.run(run("lsblk", "--json", "--list", "--output", _COLUMNS, timeout=20))
    except ImmudError:
        return ()
    return tuple(_found(said.stdout))


def _found(listed: bytes | str) -> Iterator[Partition]:
    try:
        devices = json.loads(listed)["blockdevices"]
    except (ValueError, KeyError):
        return
    disks = {device["pkname"] for device in devices if "/" in (device["mountpoints"] or ())}
    for device in devices:
        where = TYPES.get(device["parttype"] or "")
        flags = int(device["partflags"] or "0x0", 16)
        if where and device["pkname"] in disks and not flags >> _NO_AUTO & 1:
            number = device.get("partn") or re.sub(r".*\D", "", device["path"])
            mounted = where in (device["mountpoints"] or ())
            yield Partition(device["path"], f"/dev/{device['pkname']}", int(number), where, mounted)
