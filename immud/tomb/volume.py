"""One configured tomb's volume, as the kernel shows it: its mappings, and what they stand on.

Nothing is remembered but names: whether there is a mapping or a mount is asked
of the kernel each time, so that whatever is done to a volume may be repeated.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from immud.early import mountinfo
from immud.errors import ImmudError
from immud.model import Problem, TombConfig
from immud.tomb import loops
from immud.tomb.drives import drive
from immud.tomb.dyne import key as dyne
from immud.tomb.fs import mounts, place
from immud.tomb.luks import dm
from immud.tomb.luks.headstart import HeadStart
from immud.tomb.luks.unlock import Inner
from immud.watch import statmount, table
from immud.watch.devices import Device


@dataclass(frozen=True, slots=True)
class State:
    """What the kernel has of a tomb: its mappings, and whether one is mounted in its place."""

    mappings: tuple[dm.Mapping, ...] = ()
    mounted: dm.Mapping | None = None


class Volume:
    """The volume of one configured tomb.

    `lookup` finds a device in udev's database by `major:minor`; `nudge` is set
    whenever a block device went away; `headstart` is for all volumes. `inner` is what
    was found in the mapping that was verified last, None while there is none.
    `unmounted` is whether what is mapped and not mounted any more was unmounted by us.
    """

    def __init__(
        self,
        config: TombConfig,
        lookup: Callable[[str], Device | None],
        nudge: asyncio.Event,
        headstart: HeadStart | None = None,
    ) -> None:
        self.config = config
        self.target = place.settled(config.mount)
        self.hidden = False
        self.unmounted = False
        self.inner: Inner | None = None
        self.notes: tuple[Problem, ...] = ()
        # What its checker, or the kernel, said when it was opened last.
        self.damage, self.checked = "", False
        self.lookup = lookup
        self.nudge = nudge
        self.headstart = headstart or HeadStart()

    def state(self) -> State:
        """What the kernel has of this tomb now."""
        found = tuple(m for m in dm.mappings() if self._owns(m.name))
        top = table.top(self.target) if found else None
        mounted = next((m for m in found if top and m.number == top.dev), None)
        return State(found, mounted or self._btrfs(found, top))

    def _owns(self, name: str) -> bool:
        belongs = dyne.belongs if self.config.file else dm.belongs
        return belongs(name, self.config.name)

    def free_name(self, node: str) -> str:
        """A name for a new mapping of this tomb, on the device `node`."""
        taken = {mapping.name for mapping in dm.mappings()}
        if not self.config.file:
            return dm.free_name(self.config.name, taken)
        return dyne.mapping_name(self.config.name, self.config.file, os.path.basename(node), taken)

    def _btrfs(
        self, found: tuple[dm.Mapping, ...], top: mountinfo.MountEntry | None
    ) -> dm.Mapping | None:
        """btrfs has a device number of its own; its source names the mapping."""
        return next((m for m in found if top and mounts.on_btrfs(top, m.nodes)), None)

    def base(self, mapping: dm.Mapping) -> str:
        """The `major:minor` of the drive the mapping stands on, empty where that is gone.

        A loop device outlives the drive its file is on.
        """
        number = self.below(mapping)
        if self.config.file and number:
            number = loops.ground(number)
        return number if number and drive.alive(number) else ""

    def below(self, mapping: dm.Mapping) -> str:
        """The `major:minor` of what is right below the mapping, empty where that is gone."""
        with suppress(OSError):
            for number in dm.dependencies(mapping.name):
                if drive.alive(number):
                    return number
        return ""

    def stands(self, mapping: dm.Mapping, lost: Device | None) -> bool:
        """Whether a mapping is on a drive that is there, and not on what was `lost`."""
        base = self.base(mapping)
        other = lost is None or lost.number != base or drive.alive(lost.number, lost.diskseq)
        return bool(base) and other

    def unwiped(self) -> tuple[dm.Mapping, ...]:
        """Our mappings that may have a key: what was purged stands on nothing any more."""
        found = []
        for mapping in self.state().mappings:
            # Gone in the meantime.
            with suppress(OSError):
                found += [mapping] if dm.dependencies(mapping.name) else []
        return tuple(found)

    def device(self, mapping: dm.Mapping) -> Device | None:
        """The device the mapping stands on, or None where it is gone."""
        number = self.base(mapping)
        return (self.lookup(number) or drive.bare(number)) if number else None

    def on(self, device: Device) -> dm.Mapping | None:
        """Our mapping of `device`. An older one of a dead device has another base, or none."""
        return next((m for m in self.state().mappings if self.base(m) == device.number), None)

    def mapping(self, device: Device) -> dm.Mapping:
        """Our mapping of `device`. Raises ImmudError where it is gone."""
        mapping = self.on(device)
        if mapping is None:
            raise ImmudError(f"The mapping of {device.devnode} is gone; plug the drive in again.")
        return mapping

    def devices(self, mapping: dm.Mapping) -> list[str]:
        """The numbers the mapping's file system goes by.

        A btrfs has one of its own, and one for each subvolume: that of what is mounted is the one
        by which a loop device on a file in it is known: but for a mount behind a server, which may
        keep us waiting.
        """
        numbers = set()
        entries = mountinfo.read()
        for entry in entries:
            if mounts.on_btrfs(entry, mapping.nodes):
                numbers.add(entry.dev)
                if table.asks(mountinfo.way(entries, entry.target)):
                    continue
                with suppress(OSError):  # unmounted in the meantime
                    mount, device, _ = statmount.where(entry.target)
                    if mount == entry.id:  # and nothing is mounted over it
                        numbers.add(f"{device[0]}:{device[1]}")
        return [mapping.number, *sorted(numbers)]
