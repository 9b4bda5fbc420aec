"""Opening a volume, work by work, each leaving things as if it had not begun or done.

What a work finds done already it leaves as it is: any of them may be repeated.
"""

from contextlib import suppress

from immud.child import in_child
from immud.early import mountinfo
from immud.errors import ImmudError, WrongVolume
from immud.run import CommandFailed, run
from immud.tomb import dm, mounts
from immud.tomb import unlock as keys
from immud.tomb.volume import Volume
from immud.watch.devices import Device

# What people's homes can be on: permissions, and a checker or a log. vfat has neither.
FILE_SYSTEMS = ("ext4", "xfs", "btrfs", "f2fs")
CHECK_TIMEOUT = 3600.0


async def unlock(volume: Volume, device: Device, passphrase: bytes | None) -> None:
    """Map the volume on `device`."""
    if mapping := volume.on(device):
        with suppress(OSError):
            dm.keep(mapping.name)
        return
    name = dm.free_name(volume.config.name, {m.name for m in dm.mappings()})
    await keys.attach(name, device.devnode, volume.config.key, passphrase)
    mapping = volume.mapping(device)
    # A copied header that says so would take new data in the clear, any key fits it.
    cipher = dm.cipher(mapping.name)
    if not cipher or cipher.startswith(("cipher_null", "null", "capi:ecb(cipher_null")):
        raise WrongVolume(
            f"The volume on {device.devnode} is not encrypted ({cipher or 'no cipher'}), "
            "although it says it is yours: it is not the drive it claims to be."
        )


def _fstype(volume: Volume, mapping: dm.Mapping) -> str:
    found = volume.lookup(mapping.number)
    fstype = found.fs_type if found else ""
    if fstype not in FILE_SYSTEMS:
        raise ImmudError(
            f"The volume holds {fstype or 'no file system'}; a tomb needs one of "
            f"{', '.join(FILE_SYSTEMS)}. Make one with: mkfs.ext4 {mapping.devnode}"
        )
    return fstype


async def check(volume: Volume, device: Device) -> None:
    """Have the file system's own checker look at it, and repair what is safe to.

    fsck.TYPE itself, which is what systemd-fsck(8) ends up with two programs
    later. Its exit status is a set of bits: 1 is "corrected" (fsck(8)).
    """
    mapping = volume.mapping(device)
    fstype = _fstype(volume, mapping)
    try:
        await run(f"fsck.{fstype}", "-a", mapping.devnode, allowed=(0, 1), timeout=CHECK_TIMEOUT)
    except CommandFailed as error:
        if error.code == 127:
            raise ImmudError(f"fsck.{fstype} is missing; install it for this tomb.") from error
        raise ImmudError(
            f"The file system has errors that were not corrected; open it by hand and run: "
            f"fsck.{fstype} {mapping.devnode}"
        ) from error


async def mount(volume: Volume, device: Device) -> None:
    """Mount the mapping at its place, nosuid and nodev."""
    mapping = volume.mapping(device)
    if volume.state().mounted:
        return
    if other := mountinfo.top(mountinfo.read(), volume.target):
        raise ImmudError(
            f"{other.source} is already mounted at {volume.target}; unmount it, and remove it "
            "from /etc/fstab if it is there."
        )
    volume.hidden = await in_child(
        mounts.mount,
        mapping.devnode,
        _fstype(volume, mapping),
        volume.target,
        list(volume.config.options),
        timeout=300,
    )
