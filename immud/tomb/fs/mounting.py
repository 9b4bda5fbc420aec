"""Checking and mounting what is in an unlocked volume: writable if it can be, else read-only.

What a work finds done already it leaves as it is: any of them may be repeated.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from immud.child import in_child
from immud.early import kernel, mountinfo
from immud.errors import DamagedVolume, ImmudError
from immud.tomb import holders
from immud.tomb.absence import absent
from immud.tomb.absence.fallback import Fallback, Guard
from immud.tomb.drives import drive
from immud.tomb.drives.below import claimed
from immud.tomb.fs import check as checking
from immud.tomb.fs import health, mounts
from immud.tomb.fs.check import Progress
from immud.tomb.fs.filesystems import FILE_SYSTEMS
from immud.tomb.fs.nesting import Nest
from immud.tomb.holders import Found, Holders
from immud.tomb.luks import dm
from immud.tomb.luks.unlock import Inner
from immud.tomb.volume import Volume
from immud.watch.devices import Device


def _inner(volume: Volume, mapping: dm.Mapping) -> Inner:
    if volume.inner is None or volume.inner.mapping != mapping.name:
        raise ImmudError("The volume was not looked at before it is used; open it again.")
    return volume.inner


async def check(volume: Volume, device: Device, progress: Progress) -> None:
    """Have the file system's own checker look at it, and repair what is safe to.

    What it leaves damaged keeps the mount from being writable, and no more.
    """
    mapping = volume.mapping(device)
    inner = _inner(volume, mapping)
    volume.damage, volume.checked = "", False
    # What cannot be written to cannot be repaired, and what a namespace that was in the way of
    # its closing has mounted needs no repair: it is mounted here as well.
    if inner.sound or drive.read_only(mapping.number):
        return
    if not await in_child(claimed, mapping.devnode):
        volume.damage = await checking.check(inner.fs_type, mapping.devnode, progress)
        volume.checked = True


async def mount(
    volume: Volume, device: Device, fallback: Fallback, nest: Nest, progress: Progress
) -> None:
    """Mount the mapping at its place, nosuid and nodev, as soon as that is free.

    What was there while the tomb was away stays, hidden, and shows when the tomb goes.
    Tombs that are open inside that place are mounted again, on top of this one.
    Writable if it can be; where it is damaged, read-only. Raises ImmudError where
    neither can be done.
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
    work = _Mounting(volume, mapping, _inner(volume, mapping).fs_type, fallback, nest)
    if drive.read_only(mapping.number) or not await work.writable(progress):
        await work.readable(device)
    if other:
        volume.hidden = False


@dataclass(frozen=True, slots=True)
class _Mounting:
    """One volume on its way to its place."""

    volume: Volume
    mapping: dm.Mapping
    fstype: str
    fallback: Fallback
    nest: Nest

    async def writable(self, progress: Progress) -> bool:
        """Mount it to be written to; False where it is damaged, in a way `volume` says then."""
        volume = self.volume
        while not volume.damage:
            try:
                await self._mount()
            except DamagedVolume as error:
                said = str(error).rstrip(".")
            else:
                return True
            if FILE_SYSTEMS[self.fstype].checker and not volume.checked:
                # The superblock said that all was well, and so the checker was not asked.
                volume.damage = await checking.check(self.fstype, self.mapping.devnode, progress)
                volume.checked = True
            else:
                volume.damage = said
        return False

    async def readable(self, device: Device) -> None:
        """Mount it read-only, if need be without its log, which may not be read or written to."""
        with suppress(DamagedVolume):
            await self._mount("ro")
            return
        # Without its log ext4 would still tidy up what was deleted while open, past that log.
        await in_child(drive.forbid_writing, self.mapping.devnode)
        try:
            await self._mount("ro", *FILE_SYSTEMS[self.fstype].unwritten)
        except DamagedVolume as error:
            said = (self.volume.damage or str(error)).rstrip(".")
            how = health.repair(self.volume.config, device.devnode, self.fstype)
            raise ImmudError(f"{said}. It cannot even be read; {how}") from error

    async def _mount(self, *more: str) -> None:
        volume, config = self.volume, self.volume.config
        options = [*config.options, *more]
        build = partial(mounts.build, self.mapping.devnode, self.fstype, options, config.map)
        own = [self.mapping.number]
        if self.fstype == "btrfs":
            own, _ = await in_child(mounts.everywhere, own, list(self.mapping.nodes))
        try:
            while True:
                guard = self.fallback.guard(own)
                volume.hidden, found = await self.nest.in_turn(
                    mount_unheld, build, volume.target, guard, timeout=300
                )
                if not found:
                    return
                await self.fallback.free(Holders(found), own)
        finally:
            self.fallback.resume()


def mount_unheld(
    build: Callable[[], int], target: str, guard: Guard | None, below: list[str]
) -> tuple[bool, list[Found]]:
    """In a child: mount, unless somebody holds what that would hide; whether it hid anything.

    They are looked for last, when nothing is left to do but the move itself, and to
    take away what is mounted `below`.
    """
    tree = build()
    try:
        if found := holders.scan(*guard) if guard else []:
            return False, found
        mounts.take_away(below, kernel.MNT_DETACH)
        return mounts.place(tree, target), []
    finally:
        os.close(tree)
