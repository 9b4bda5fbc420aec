"""Opening a volume, work by work, each leaving things as if it had not begun or done.

What a work finds done already it leaves as it is: any of them may be repeated.
"""

import os
from contextlib import suppress

from immud import log
from immud.early import kernel, mountinfo
from immud.errors import ImmudError
from immud.run import CommandFailed, run
from immud.tomb import absent, dm, drive, holders, identity, material, mounts
from immud.tomb import unlock as keys
from immud.tomb.fallback import Fallback, Guard
from immud.tomb.holders import Found, Holders
from immud.tomb.nesting import Nest
from immud.tomb.volume import Volume
from immud.watch.devices import Device

CHECK_TIMEOUT = 3600.0


async def unlock(
    volume: Volume, device: Device, passphrase: bytes | None, key_drive: Device | None = None
) -> None:
    """Map the volume on `device`, which is the pinned one."""
    volume.inner = None
    if mapping := volume.on(device):
        with suppress(OSError):
            dm.keep(mapping.name)
        await recognise(volume, device)
        return
    config = volume.config
    found = await material.secrets(config, device, key_drive, passphrase)
    async with material.ground(config, device) as (node, number):
        name = volume.free_name(node)
        request = keys.Request(config.name, node, number, name, config.key, passphrase)
        _take(volume, await material.open_volume(config, request, found), device)


async def recognise(volume: Volume, device: Device) -> None:
    """Know what is in the mapping of `device`, and that it is the pinned volume."""
    mapping = volume.mapping(device)
    if volume.inner is None or volume.inner.mapping != mapping.name:
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


def _fstype(volume: Volume, mapping: dm.Mapping) -> str:
    if volume.inner is None or volume.inner.mapping != mapping.name:
        raise ImmudError("The volume was not looked at before it is used; open it again.")
    return volume.inner.fs_type


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


async def mount(volume: Volume, device: Device, fallback: Fallback, nest: Nest) -> None:
    """Mount the mapping at its place, nosuid and nodev, as soon as that is free.

    What was there while the tomb was away stays, hidden, and shows when the tomb goes.
    Tombs that are open inside that place are mounted again, on top of this one.
    """
    mapping = volume.mapping(device)
    if volume.state().mounted:
        return
    await fallback.settled()
    other = mountinfo.top(mountinfo.read(), volume.target)
    if other and not absent.ours(other):
        raise ImmudError(
            f"{other.source} is already mounted at {volume.target}; unmount it, and remove it "
            "from /etc/fstab if it is there."
        )
    source = (mapping.devnode, _fstype(volume, mapping), list(volume.config.options))
    guard = fallback.guard()
    try:
        while True:
            hidden, found = await nest.in_turn(
                mount_unheld, source, volume.target, guard, timeout=300
            )
            if not found:
                break
            await fallback.free(Holders(found))
    finally:
        fallback.resume()
    volume.hidden = hidden and other is None


def mount_unheld(
    source: tuple[str, str, list[str]], target: str, guard: Guard | None, below: list[str]
) -> tuple[bool, list[Found]]:
    """In a child: mount, unless somebody holds what that would hide; whether it hid anything.

    They are looked for last, when nothing is left to do but the move itself, and to
    take away what is mounted `below`.
    """
    tree = mounts.build(*source)
    try:
        if found := holders.scan(*guard) if guard else []:
            return False, found
        mounts.take_away(below, kernel.MNT_DETACH)
        return mounts.place(tree, target), []
    finally:
        os.close(tree)
