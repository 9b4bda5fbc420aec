"""Unlocking a volume, and knowing what is in it.

What a work finds done already it leaves as it is: any of them may be repeated.
"""

from contextlib import suppress

from immud import log
from immud.tomb import material, plain
from immud.tomb.drives import drive
from immud.tomb.luks import dm, identity
from immud.tomb.luks import unlock as keys
from immud.tomb.volume import Volume
from immud.watch.devices import Device


async def unlock(
    volume: Volume,
    device: Device,
    passphrase: bytes | None,
    key_drive: Device | None = None,
    *,
    read_only: bool = False,
) -> None:
    """Map the volume on `device`, which is the pinned one.

    Read-only where that is asked for or configured, or where the drive is.
    """
    volume.inner = None
    if mapping := volume.on(device):
        with suppress(OSError):
            dm.keep(mapping.name)
        await recognise(volume, device)
        return
    config = volume.config
    read_only = read_only or config.unwritten or drive.read_only(device.number)
    if not config.encrypted:
        name = volume.free_name(device.devnode)
        volume.inner = await plain.open_volume(device, name, config.uuid, read_only=read_only)
        return
    found = await material.secrets(config, device, key_drive, passphrase, read_only=read_only)
    async with material.ground(config, device, read_only=read_only) as (node, number):
        name = volume.free_name(node)
        request = keys.Request(
            *(config.name, node, number, name, config.key, passphrase),
            read_only=read_only or drive.read_only(number),
        )
        _take(volume, await material.open_volume(config, request, found, volume.headstart), device)


async def recognise(volume: Volume, device: Device) -> None:
    """Know what is in the mapping of `device`, and that it is the pinned volume."""
    mapping = volume.mapping(device)
    if volume.inner is None or volume.inner.mapping != mapping.name:
        if not volume.config.encrypted:
            volume.inner = await plain.recognise(device, mapping.name, volume.config.uuid)
            return
        number = volume.below(mapping)
        node = drive.bare(number).devnode
        request = keys.Request(volume.config.name, node, number, mapping.name)
        _take(volume, await keys.recognise(request), device)


def _take(volume: Volume, inner: keys.Inner, device: Device) -> None:
    volume.inner = inner
    if inner.pinned:
        log.get(tomb=volume.config.name).notice(
            f"Tomb {volume.config.name} is the volume on {device.devnode} from now on: it opened "
            f"with its key, and is pinned in {identity.path(volume.config.name)}.",
            message_id=log.MessageId.TOMB_PINNED,
            device=device.devnode,
        )
