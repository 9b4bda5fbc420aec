"""A drive that is not encrypted, for who says in the configuration that this very one is not.

It is mapped all the same, one to one: a pulled drive, a holder and a stuck mount are then
dealt with as they are for any other.
"""

from immud.child import in_child
from immud.errors import ImmudError, WrongVolume
from immud.run import run
from immud.tomb.fs import blkid, check
from immud.tomb.fs.filesystems import FILE_SYSTEMS
from immud.tomb.luks import dm
from immud.tomb.luks.unlock import Inner
from immud.watch.devices import Device


async def open_volume(device: Device, mapping: str, uuid: str, *, read_only: bool = False) -> Inner:
    """Map the file system `uuid` on `device` as `mapping`; udev has seen it on return.

    Raises WrongVolume where it is another one, ImmudError.
    """
    # dmsetup(8), for udev leaves alone what nobody made with one of its cookies.
    table = f"0 {dm.sectors(device.number)} linear {device.number} 0"
    flags = ("--readonly",) if read_only else ()
    await run("dmsetup", "create", mapping, *flags, "--table", table)
    return await recognise(device, mapping, uuid)


async def recognise(device: Device, mapping: str, uuid: str) -> Inner:
    """What is in a mapping of `device`, which is to be the file system `uuid`. Raises as above."""
    return Inner(*await in_child(_look, device.devnode, device.number, mapping, uuid))


def _look(devnode: str, number: str, mapping: str, uuid: str) -> tuple[str, str, str, bool, bool]:
    """In a child."""
    if dm.dependencies(mapping) != (number,):
        raise ImmudError(f"The mapping {mapping} is not one of {devnode}; close it: immud close")
    node = dm.node(mapping)
    fs_type, found = blkid.probe(node, tuple(FILE_SYSTEMS))
    if not fs_type or found.lower() != uuid:
        raise WrongVolume(
            f"{devnode} matches the tomb's identifiers but has "
            f"{f'the file system {found}' if fs_type else 'no file system for a tomb'} on it, "
            f"instead of {uuid}, as the configuration says."
        )
    return mapping, fs_type, found, False, check.is_sound(fs_type, node)
