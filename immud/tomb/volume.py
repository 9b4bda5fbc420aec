"""The effects: what one volume needs done, each leaving things as if it had not begun or done.

Nothing is remembered but names: whether there is a mapping or a mount is asked
of the kernel each time, so everything here may be repeated.
"""

import asyncio
import errno
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from immud.child import in_child
from immud.early import mountinfo
from immud.early.kernel import MNT_DETACH
from immud.errors import Busy, ImmudError, WrongVolume
from immud.model import Holder, TombConfig
from immud.run import CommandFailed, run
from immud.tomb import dm, drive, holders, loops, mounts, unlock
from immud.watch.devices import Device

# What people's homes can be on: permissions, and a checker or a log. vfat has neither.
FILE_SYSTEMS = ("ext4", "xfs", "btrfs", "f2fs")
CHECK_TIMEOUT = 3600.0
# From SIGTERM to SIGKILL where a person said force, seconds.
POLITE = 5.0
# A mapping whose last user was killed is gone in milliseconds; a process stuck in the
# kernel may keep it, empty, for longer than anybody wants to wait.
SETTLE = 3.0
QUICK = 0.3


@dataclass(frozen=True, slots=True)
class State:
    """What the kernel has of a tomb: its mappings, and whether one is mounted in its place."""

    mappings: tuple[dm.Mapping, ...] = ()
    mounted: dm.Mapping | None = None


def _purge_here(devices: list[str]) -> list[str]:
    """In a child: out of everybody's sight, and no key in the kernel; the mappings' names."""
    stacked = loops.stack(devices)
    names = [mapping.name for mapping in dm.mappings() if mapping.number in stacked]
    for _ in range(100):
        # Mounts can be stacked, and each layer shows only when the one above has gone.
        if not mounts.take_away(stacked, MNT_DETACH):
            break
    loops.detach(stacked)
    for number in devices:
        for name in (m.name for m in dm.mappings() if m.number == number):
            with suppress(OSError):
                dm.wipe(name, dm.sectors(number))
    for name in reversed(names):
        with suppress(OSError):
            dm.remove(name, deferred=True)
    return stacked


def _purge_and_find(
    devices: list[str], prefixes: list[str], maps: bool
) -> tuple[list[str], list[holders.Found]]:
    """In a child: the above, and who holds what is left; one fork less to wait for."""
    stacked = _purge_here(devices)
    return stacked, holders.scan([holders.pair(number) for number in stacked], prefixes, maps=maps)


def _remove(name: str) -> bool:
    """In a child: remove a mapping, or whatever stands below it of cryptsetup's own too.

    False where it is still open.
    """
    below = dm.dependencies(name)
    try:
        dm.remove(name)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return True
        if error.errno != errno.EBUSY:
            raise
        return False
    for mapping in dm.mappings():
        # The integrity device cryptsetup puts between a volume and its drive.
        if mapping.number in below and mapping.uuid.startswith("CRYPT-SUBDEV-"):
            dm.remove(mapping.name, deferred=True)
    return True


def _remove_later(name: str) -> None:
    """In a child: remove a mapping as soon as nobody has it open."""
    dm.remove(name, deferred=True)


class Volume:
    """The volume of one configured tomb.

    `lookup` finds a device in udev's database by `major:minor`; `nudge` is set
    whenever a block device went away.
    """

    def __init__(
        self, config: TombConfig, lookup: Callable[[str], Device | None], nudge: asyncio.Event
    ) -> None:
        self.config = config
        self.target = os.path.realpath(config.mount)
        self.hidden = False
        self._lookup = lookup
        self._nudge = nudge

    def state(self) -> State:
        """What the kernel has of this tomb now."""
        found = tuple(m for m in dm.mappings() if dm.belongs(m.name, self.config.name))
        top = mountinfo.top(mountinfo.read(), self.target) if found else None
        mounted = next((m for m in found if top and m.number == top.dev), None)
        return State(found, mounted or self._btrfs(found, top))

    def _btrfs(
        self, found: tuple[dm.Mapping, ...], top: mountinfo.MountEntry | None
    ) -> dm.Mapping | None:
        """btrfs has a device number of its own; its source names the mapping."""
        return next((m for m in found if top and m.devnode == top.source), None)

    def base(self, mapping: dm.Mapping) -> str:
        """The `major:minor` the mapping stands on, empty where that device is gone."""
        with suppress(OSError):
            for number in dm.dependencies(mapping.name):
                if drive.alive(number):
                    return number
        return ""

    def device(self, mapping: dm.Mapping) -> Device | None:
        """The device the mapping stands on, or None where it is gone."""
        number = self.base(mapping)
        return (self._lookup(number) or drive.bare(number)) if number else None

    def _on(self, device: Device) -> dm.Mapping | None:
        """Our mapping of `device`. An older one of a dead device has another base, or none."""
        return next((m for m in self.state().mappings if self.base(m) == device.number), None)

    async def unlock(self, device: Device, passphrase: bytes | None) -> None:
        """Map the volume on `device`."""
        if mapping := self._on(device):
            with suppress(OSError):
                dm.keep(mapping.name)
            return
        name = dm.free_name(self.config.name, {m.name for m in dm.mappings()})
        await unlock.attach(name, device.devnode, self.config.key, passphrase)
        mapping = self._mapping(device)
        # A copied header that says so would take new data in the clear, any key fits it.
        cipher = dm.cipher(mapping.name)
        if not cipher or cipher.startswith(("cipher_null", "null", "capi:ecb(cipher_null")):
            raise WrongVolume(
                f"The volume on {device.devnode} is not encrypted ({cipher or 'no cipher'}), "
                "although it says it is yours: it is not the drive it claims to be."
            )

    def _mapping(self, device: Device) -> dm.Mapping:
        mapping = self._on(device)
        if mapping is None:
            raise ImmudError(f"The mapping of {device.devnode} is gone; plug the drive in again.")
        return mapping

    def _fstype(self, mapping: dm.Mapping) -> str:
        found = self._lookup(mapping.number)
        fstype = found.fs_type if found else ""
        if fstype not in FILE_SYSTEMS:
            raise ImmudError(
                f"The volume holds {fstype or 'no file system'}; a tomb needs one of "
                f"{', '.join(FILE_SYSTEMS)}. Make one with: mkfs.ext4 {mapping.devnode}"
            )
        return fstype

    async def check(self, device: Device) -> None:
        """Have the file system's own checker look at it, and repair what is safe to.

        fsck.TYPE itself, which is what systemd-fsck(8) ends up with two programs
        later. Its exit status is a set of bits: 1 is "corrected" (fsck(8)).
        """
        mapping = self._mapping(device)
        fstype = self._fstype(mapping)
        try:
            await run(
                f"fsck.{fstype}", "-a", mapping.devnode, allowed=(0, 1), timeout=CHECK_TIMEOUT
            )
        except CommandFailed as error:
            if error.code == 127:
                raise ImmudError(f"fsck.{fstype} is missing; install it for this tomb.") from error
            raise ImmudError(
                f"The file system has errors that were not corrected; open it by hand and run: "
                f"fsck.{fstype} {mapping.devnode}"
            ) from error

    async def mount(self, device: Device) -> None:
        """Mount the mapping at its place, nosuid and nodev."""
        mapping = self._mapping(device)
        if self.state().mounted:
            return
        if other := mountinfo.top(mountinfo.read(), self.target):
            raise ImmudError(
                f"{other.source} is already mounted at {self.target}; unmount it, and remove it "
                "from /etc/fstab if it is there."
            )
        self.hidden = await in_child(
            mounts.mount,
            mapping.devnode,
            self._fstype(mapping),
            self.target,
            list(self.config.options),
            timeout=300,
        )

    def _devices(self, mapping: dm.Mapping) -> list[str]:
        """The numbers the mapping's file system goes by."""
        sources = {e.dev for e in mountinfo.read() if e.source == mapping.devnode}
        return [mapping.number, *sorted(sources - {mapping.number})]

    async def _find(self, numbers: list[str], *, namespaces: bool = False) -> holders.Holders:
        pairs = [holders.pair(number) for number in numbers]
        return await holders.find(pairs, self._prefixes(numbers), namespaces=namespaces)

    def _prefixes(self, numbers: list[str]) -> list[str]:
        """btrfs's files have other numbers than its mount; elsewhere a path proves nothing."""
        return [self.target] if any(number.startswith("0:") for number in numbers) else []

    async def unmount(self, *, force: bool = False) -> None:
        """Unmount politely. Raises Busy with the names of those in the way.

        With `force` they are asked to end, then ended.
        """
        mapping = self.state().mounted
        if mapping is None:
            return
        numbers = self._devices(mapping)
        for attempt in range(3):
            try:
                await in_child(mounts.take_away, numbers, timeout=300)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            else:
                return
            found = await self._find(await in_child(loops.stack, numbers))
            if not force or attempt == 2:
                raise Busy(f"{self.target} is in use by {self._in_the_way(found, numbers)}.")
            await found.end(signal.SIGKILL if attempt else signal.SIGTERM, POLITE)

    def _in_the_way(self, found: holders.Holders, numbers: list[str]) -> str:
        below = [
            Holder(0, 0, entry.target, "", f"{entry.fstype} mounted there")
            for entry in mountinfo.read()
            if entry.target.startswith(f"{self.target}/") and entry.dev not in numbers
        ]
        return holders.sentence([*found.values, *below]) or "the kernel (a swap file, or an export)"

    async def unmap(self) -> None:
        """Take away what is mapped and not mounted. Raises Busy where it is held elsewhere."""
        for mapping in filter(self.base, self.state().mappings):
            numbers = self._devices(mapping)
            if await in_child(_remove, mapping.name):
                continue
            # Private copies of the mount in other namespaces, which ours did not take along.
            await in_child(mounts.take_away_elsewhere, numbers)
            if await in_child(_remove, mapping.name):
                continue
            # udev looks at what was just closed; whoever it is, the mapping ends with them.
            await in_child(_remove_later, mapping.name)
            if not await self._gone((mapping,), SETTLE):
                found = await self._find(numbers, namespaces=True)
                raise Busy(
                    f"{mapping.devnode} is unmounted, but still in use by "
                    f"{self._in_the_way(found, numbers)}; it is closed as soon as they end."
                )

    async def retreat(self) -> None:
        """Take back an opening that was interrupted: nobody can have come to hold it."""
        await self.unmount(force=True)
        await self.unmap()

    async def purge(self) -> holders.Holders:
        """The drive is gone. Everything of it goes: mounts, key, loops, holders, mapping.

        In this order: first what others could still see, then the key, then those
        who hold the rest. Returns the holders that were ended.
        """
        dead = [m for m in self.state().mappings if not self.base(m)]
        numbers = [number for m in dead for number in self._devices(m)]
        if not numbers:
            return holders.Holders(())
        (stacked, ended), _ = await asyncio.gather(
            in_child(_purge_and_find, numbers, self._prefixes(numbers), False),
            in_child(mounts.take_away_elsewhere, numbers, MNT_DETACH),
        )
        found = holders.Holders(ended)
        await found.end(signal.SIGKILL, 1.0)
        if await self._gone(tuple(dead), QUICK):
            return found
        # Who mapped a file and closed it; and what appeared meanwhile, such as a mount on a mount.
        stacked, late = await in_child(_purge_and_find, numbers, self._prefixes(numbers), True)
        await holders.Holders(late).end(signal.SIGKILL, 1.0)
        if not await self._gone(tuple(dead), SETTLE):
            rest = await self._find(stacked, namespaces=True)
            names = ", ".join(mapping.devnode for mapping in dead)
            raise Busy(
                f"The key is wiped and nothing is mounted, but {names} is still held by "
                f"{self._in_the_way(rest, stacked)}; it goes when they end."
            )
        return found

    async def _gone(self, which: tuple[dm.Mapping, ...], seconds: float) -> bool:
        """Wait for mappings to disappear, which the kernel announces as removals."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while set(which) & set(dm.mappings()):
                    self._nudge.clear()
                    await self._nudge.wait()
        return not set(which) & set(dm.mappings())

    async def eject(self, device: Device) -> None:
        """Switch the drive off, as far as it can be."""
        await in_child(drive.switch_off, device.disk, device.devnode)
