"""Make an open tomb as large as what it is on has become: the mapping, then the file system."""

import asyncio
import os

from immud.early import mountinfo
from immud.errors import ImmudError, WrongState
from immud.make.header import NO_SUCH_KEY
from immud.make.secret import passed
from immud.model import TombConfig
from immud.run import CommandFailed, run
from immud.tomb.luks import dm, identity
from immud.tomb.luks.unlock import TIMEOUT
from immud.tomb.volume import Volume
from immud.watch.udev import UdevWatch

# A file system that grows by terabytes writes new tables for all of that.
GROW_TIMEOUT = 3600.0


def open_volume(tomb: TombConfig) -> tuple[Volume, dm.Mapping]:
    """The volume of an open tomb, and its mapping. Raises WrongState where it is not open."""
    volume = Volume(tomb, UdevWatch(lambda _: None).lookup, asyncio.Event())
    mapping = volume.state().mounted
    if mapping is None:
        raise WrongState(f"Tomb {tomb.name} is not open, and can only grow while it is: immud open")
    return volume, mapping


def spare(volume: Volume, mapping: dm.Mapping) -> int:
    """How much larger the device is than what is mapped of it, in bytes.

    Raises ImmudError where the header itself says how large the volume is.
    """
    device = volume.device(mapping)
    if device is None:
        raise ImmudError("The drive is gone.")
    pin = identity.of(device.devnode)
    if dict(pin.segment).get("size", "dynamic") != "dynamic":
        raise ImmudError(
            f"The header of {device.devnode} fixes the size of its volume, so it cannot grow."
        )
    return (dm.sectors(device.number) - pin.offset - dm.sectors(mapping.number)) * 512


async def grow_mapping(mapping: dm.Mapping, key: bytes) -> None:
    """cryptsetup resize, which needs a key: the kernel does not give back the one it has."""
    try:
        with passed(key) as path:
            await run(*("cryptsetup", "resize", "--key-file", path, mapping.name), timeout=TIMEOUT)
    except CommandFailed as error:
        if error.code != NO_SUCH_KEY:
            raise
        raise ImmudError(f"Wrong passphrase or key for {mapping.devnode}.") from error


async def grow_file_system(volume: Volume, mapping: dm.Mapping) -> int:
    """Have the mounted file system take all of the mapping; its size in bytes then."""
    entry = mountinfo.top(mountinfo.read(), volume.target)
    if entry is None or entry.dev not in volume.devices(mapping):
        raise ImmudError(f"{volume.target} shows something else now; open the tomb, and try again.")
    commands = {
        "ext4": ("resize2fs", mapping.devnode),
        "xfs": ("xfs_growfs", "-d", volume.target),
        "btrfs": ("btrfs", "filesystem", "resize", "max", volume.target),
    }
    if entry.fstype not in commands:
        raise ImmudError(f"{entry.fstype} cannot be made larger while it is mounted.")
    await run(*commands[entry.fstype], timeout=GROW_TIMEOUT)
    found = os.statvfs(volume.target)
    return found.f_blocks * found.f_frsize
