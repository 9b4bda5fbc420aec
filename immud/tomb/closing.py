"""Closing a volume, politely or because its drive is gone, so that nothing of it is left.

Each work asks the kernel what there is and takes that away: any of them may be repeated.
"""

import asyncio
import errno
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from immud.child import ChildTimeout, in_child
from immud.early import mountinfo
from immud.early.kernel import MNT_DETACH
from immud.errors import Busy
from immud.model import Holder
from immud.tomb import holders, loops, remains
from immud.tomb.drives import drive
from immud.tomb.fs import mounts
from immud.tomb.luks import dm
from immud.tomb.volume import Volume
from immud.watch.devices import Device

# From SIGTERM to SIGKILL where a person said force, and not how long, seconds.
POLITE = 5.0
# A mapping whose last user was killed is gone in milliseconds; a process stuck in the
# kernel may keep it, empty, for longer than anybody wants to wait.
SETTLE = 3.0
# Looking for holders, and for what stands on a volume: a second where there is much of it.
LOOK = 10.0
# What tomb(1) needs between unmounting and closing, on a slow machine.
BY_HAND = 3.0
QUICK = 0.3


class Lost(NamedTuple):
    """What a purge is about: device numbers, and the nodes that a btrfs on them is known by.

    `detached` are mounts of it that may be in no table any more, see `mounts.numbers`.
    """

    devices: list[str]
    nodes: list[str]
    detached: list[int]


def _purge_here(devices: list[str], *, servers: bool) -> list[str]:
    """In a child: out of everybody's sight, and no key in the kernel; what else is to go with it.

    Mounts that are behind a server, and what stands on it, which only the kernel knows, come after
    the key: the way there may be a wait for that server. Without `servers` they are left alone.
    """
    _detach(devices, near=True)
    for mapping in dm.mappings():
        if mapping.number in devices:
            with suppress(OSError):
                dm.wipe(mapping.name, dm.sectors(mapping.number))
    stacked = devices
    if servers:
        _detach(devices)
        stacked = loops.stack(devices)
        _detach(stacked)
    names = [mapping.name for mapping in dm.mappings() if mapping.number in stacked]
    loops.detach(stacked)
    for name in reversed(names):
        with suppress(OSError):
            dm.remove(name, deferred=True)
    return stacked


def _detach(devices: list[str], *, near: bool = False) -> None:
    for _ in range(100):
        # Mounts can be stacked, and each layer shows only when the one above has gone.
        if not mounts.take_away(devices, MNT_DETACH, near=near):
            break


def purge_and_find(lost: Lost, maps: bool, servers: bool) -> tuple[list[str], list[holders.Found]]:
    """In a child: the above, and who holds what is left; one fork less to wait for."""
    stacked = _purge_here(_still(lost), servers=servers)
    pairs = [holders.pair(number) for number in stacked]
    return stacked, holders.scan(pairs, [], maps=maps, detached=lost.detached)


def _purge_elsewhere(lost: Lost) -> tuple[list[str], list[int]]:
    """In a child: out of sight in other mount namespaces; what it was there, as in `Lost`."""
    devices, detached = mounts.everywhere(_still(lost), lost.nodes)
    mounts.take_away_elsewhere(devices, MNT_DETACH)
    return devices, detached


def _still(lost: Lost) -> list[str]:
    """The device numbers that nothing else has got since."""
    others = [entry for entry in mountinfo.read() if not mounts.on_btrfs(entry, lost.nodes)]
    taken = {entry.dev for entry in others if mounts.anonymous(entry.dev)}
    return [number for number in lost.devices if number not in taken]


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


async def _in_time(unknown: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` finds out in a child, or what is to do for `unknown`.

    A loop device on a file of a server that does not answer, and a process that waits for it
    in the wrong place, keep the kernel from telling anything about any of them.
    """
    try:
        return await in_child(function, *arguments, timeout=LOOK)
    except ChildTimeout:
        return unknown


async def _find(
    numbers: list[str], *, namespaces: bool = False, detached: Iterable[int] = ()
) -> holders.Holders:
    pairs = [holders.pair(number) for number in numbers]
    return await holders.find(pairs, namespaces=namespaces, detached=detached)


async def unmount(volume: Volume, *, force: float = 0.0) -> holders.Holders:
    """Unmount politely. Raises Busy with the names of those in the way.

    With `force` they are asked to end, and ended after that many seconds. Returns who was.
    """
    mapping = volume.state().mounted
    ended = holders.Holders(())
    if mapping is None:
        return ended
    numbers = volume.devices(mapping)
    for attempt in range(3):
        try:
            await in_child(mounts.take_away, numbers, timeout=300)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        else:
            volume.unmounted = True
            break
        found = await _find(await _in_time(numbers, loops.stack, numbers))
        if not force or attempt == 2:
            raise Busy(f"{volume.target} is in use by {_in_the_way(volume, found, numbers)}.")
        await found.end(signal.SIGKILL if attempt else signal.SIGTERM, force)
        ended = ended or found
    return ended


def _in_the_way(volume: Volume, found: holders.Holders, numbers: list[str]) -> str:
    below = [
        Holder(0, 0, entry.target, "", f"{entry.fstype} mounted there")
        for entry in mountinfo.read()
        if entry.target.startswith(f"{volume.target}/") and entry.dev not in numbers
    ]
    return holders.sentence([*found.values, *below]) or "the kernel (a swap file, or an export)"


async def unmap(volume: Volume, *, force: float = 0.0) -> holders.Holders:
    """Take away what is mapped and not mounted. Raises Busy where it is held elsewhere.

    With `force` those who do are ended as for `unmount`. Returns who was.
    """
    ended = holders.Holders(())
    if volume.config.file and not volume.unmounted:
        # By hand, then, and most likely by tomb(1), which fails where another is quicker.
        await _gone(volume, volume.state().mappings, BY_HAND)
    volume.unmounted = False
    for mapping in filter(volume.base, volume.state().mappings):
        numbers = volume.devices(mapping)
        if await in_child(_remove, mapping.name):
            continue
        # Private copies of the mount in other namespaces, which ours did not take along; and here
        # what is left of it where it was unmounted by hand, or is hidden by another mount.
        numbers, _ = await in_child(mounts.everywhere, numbers, list(mapping.nodes))
        await _take_rest(numbers)
        if await in_child(_remove, mapping.name):
            continue
        # udev looks at what was just closed; whoever it is, the mapping ends with them.
        await in_child(_remove_later, mapping.name)
        signals = [signal.SIGTERM, signal.SIGKILL] if force else []
        while not await _gone(volume, (mapping,), SETTLE):
            found = await _find(numbers, namespaces=True)
            if not signals:
                raise Busy(
                    f"{mapping.devnode} is unmounted, but still in use by "
                    f"{_in_the_way(volume, found, numbers)}; it is closed as soon as they end."
                )
            await found.end(signals.pop(0), force)
            ended = ended or found
            # Of a namespace that others are in, too, it is taken away now that nobody uses it.
            await _take_rest(numbers)
    return ended


async def _take_rest(numbers: list[str]) -> None:
    """Unmount what nobody uses, in all namespaces."""
    with suppress(OSError):
        await in_child(mounts.take_away, numbers)
    await in_child(mounts.take_away_elsewhere, numbers)


async def retreat(volume: Volume) -> None:
    """Take back an opening that was interrupted: nobody can have come to hold it."""
    await unmount(volume, force=POLITE)
    volume.unmounted = True
    await unmap(volume)


async def purge(volume: Volume, lost: Device | None = None) -> holders.Holders:
    """The drive is gone. Everything of it goes: mounts, key, loops, holders, mapping.

    In this order: first what others could still see, then the key, then those
    who hold the rest. `lost` is that plug of the drive, where it is known: another
    medium, or connection of an NBD, may have its number by now. Returns the holders
    that were ended.
    """
    dead = [m for m in volume.state().mappings if not volume.stands(m, lost)]
    if not dead:
        return holders.Holders(())
    here = _lost(volume, dead)
    (stacked, ended), (devices, detached) = await asyncio.gather(
        _purge_and_find(here, maps=False),
        _in_time((here.devices, []), _purge_elsewhere, here),
    )
    found = holders.Holders(ended)
    await found.end(signal.SIGKILL, 1.0)
    if await _gone(volume, tuple(dead), QUICK):
        return found
    # Who mapped a file and closed it; who holds another namespace's mount of a btrfs; and what
    # appeared meanwhile, such as a mount on a mount.
    all_over = Lost(devices, here.nodes, sorted({*here.detached, *detached}))
    stacked, late = await _purge_and_find(all_over, maps=True)
    await holders.Holders(late).end(signal.SIGKILL, 1.0)
    if not await _gone(volume, tuple(dead), SETTLE):
        rest = holders.Holders(())
        with suppress(ChildTimeout):
            rest = await _find(stacked, namespaces=True, detached=all_over.detached)
        names = ", ".join(mapping.devnode for mapping in dead)
        raise Busy(
            f"{_left(volume, dead, stacked)}, but {names} is still held by "
            f"{_in_the_way(volume, rest, stacked)}; it goes when they end."
        )
    return found


def _lost(volume: Volume, dead: list[dm.Mapping]) -> Lost:
    """What is to be purged, found out before anything is taken away.

    Who holds a mount that is in no table is known by its number.
    """
    table = mountinfo.read()
    devices: set[str] = set()
    detached: set[int] = set()
    for mapping in dead:
        # Of a purge that was killed, too.
        numbers, ids = remains.kept(mapping)
        numbers = list({*numbers, *volume.devices(mapping)})
        ids |= mounts.numbers(numbers, table)
        remains.keep(mapping, numbers, ids)
        devices.update(numbers)
        detached |= ids
    return Lost(sorted(devices), [node for m in dead for node in m.nodes], sorted(detached))


def _left(volume: Volume, dead: list[dm.Mapping], numbers: list[str]) -> str:
    """How far a purge has come, as the beginning of a sentence."""
    key = "may still be there" if set(dead) & set(volume.unwiped()) else "is wiped"
    left = mounts.of(numbers, mountinfo.read())
    # No path leads there, or none that a server on it lets us go.
    where = ", ".join(sorted({entry.target for entry in left}))
    mounted = f"what is mounted at {where} cannot be reached" if left else "nothing is mounted"
    return f"The key {key} and {mounted}"


async def _purge_and_find(lost: Lost, *, maps: bool) -> tuple[list[str], list[holders.Found]]:
    """The same in a child, as far as it can be found out in time."""
    found = await _in_time(None, purge_and_find, lost, maps, True)
    found = found or await _in_time(None, purge_and_find, lost, maps, False)
    return found or (lost.devices, [])


async def _gone(volume: Volume, which: tuple[dm.Mapping, ...], seconds: float) -> bool:
    """Wait for mappings to disappear, which the kernel announces as removals."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while set(which) & set(dm.mappings()):
                volume.nudge.clear()
                await volume.nudge.wait()
    left = set(which) & set(dm.mappings())
    for mapping in set(which) - left:
        remains.drop(mapping)
    return not left


async def eject(device: Device) -> None:
    """Switch the drive off, as far as it can be."""
    await in_child(drive.switch_off, device.disk, device.devnode)
