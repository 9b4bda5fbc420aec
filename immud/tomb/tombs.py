"""All tombs of the configuration, and what the devices and mounts mean for them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType

from immud.config.rules import within
from immud.courtesy import waiting
from immud.errors import Busy
from immud.jobs import Jobs
from immud.model import JobResult, Problem, TombConfig, TombState
from immud.service import Changed
from immud.tomb.absence.abandoned import Abandoned
from immud.tomb.absence.announce import Announcements
from immud.tomb.absence.fallback import Fallback
from immud.tomb.absence.managers import UserManagers
from immud.tomb.drives import remote
from immud.tomb.drives.match import candidates
from immud.tomb.drives.remote import Remote
from immud.tomb.fs.nesting import Nest, depth
from immud.tomb.luks import dm
from immud.tomb.luks.headstart import HeadStart
from immud.tomb.machine import OPENING, Action
from immud.tomb.owner import Owner, Told
from immud.tomb.volume import Volume
from immud.tomb.works import Works
from immud.watch.devices import Device, DeviceEvent, What
from immud.watch.kmsg import KernelLog
from immud.watch.table import Reading

HOME = "/var/home"
# What a tomb gives those around it to be mounted before it, seconds. They may be waiting for
# people themselves; and if they come later after all, it is mounted again on top of them.
OUTER = 10.0


class Tombs:
    """The owners by name. `lookup` and `ended` are those of `immud.watch.udev.UdevWatch`.

    `on_open` and `on_closed` are told a tomb's name; where `on_closed` returns an
    awaitable, a tomb that is closed politely is unmounted after it.
    """

    def __init__(
        self,
        configs: Iterable[TombConfig],
        *,
        jobs: Jobs,
        changed: Changed,
        on_open: Told,
        on_closed: Told,
        lookup: Callable[[str], Device | None],
        ended: Callable[[Device], None],
        managers: UserManagers,
        kernel_log: KernelLog,
    ) -> None:
        self._managers = managers
        self._announcements = Announcements(changed)
        self._abandoned = Abandoned()
        self._jobs = jobs
        self._changed = changed
        self._on_open = on_open
        self._on_closed = on_closed
        self._lookup = lookup
        self._nudge = asyncio.Event()
        self._headstart = HeadStart()
        self._devices: dict[str, Device] = {}
        self._wanted = {config.name: config for config in configs}
        self._moved = asyncio.Event()
        self._turns: dict[str, asyncio.Lock] = {}
        self._owners: dict[str, Owner] = {}
        for name, config in self._wanted.items():
            self._owners[name] = self._owner(config)
        self._started = False
        self._kernel_log = kernel_log
        self._remote = Remote(self._standing, ended)
        # Set for the first time no tomb is being opened and each has its fallback.
        self.settled = asyncio.Event()
        self.by_name: Mapping[str, Owner] = MappingProxyType(self._owners)

    def _works(self, config: TombConfig) -> Works:
        volume = Volume(config, self._lookup, self._nudge, self._headstart)
        around = [c.mount for c in self._wanted.values() if within(config.mount, c.mount)]
        turn = self._turns.setdefault(min(around, key=len), asyncio.Lock())
        nest = Nest(
            volume,
            lambda: (owner.nest for owner in self._owners.values()),
            turn,
            lambda: self._outer(config),
        )
        fallback = Fallback(config, nest, self._managers, self._settled)
        return Works(volume, fallback, nest)

    async def _outer(self, config: TombConfig) -> None:
        """Let those around a tomb be mounted first, for a while, where they are about to be."""
        others = (c for c in self._wanted.values() if c.name != config.name)
        around = [other.name for other in others if within(config.mount, other.mount)]
        with suppress(TimeoutError), waiting():
            async with asyncio.timeout(OUTER):
                while any(self._arriving(name) for name in around):
                    await self._moved.wait()

    def _arriving(self, name: str) -> bool:
        owner = self._owners.get(name)
        return owner is not None and owner.life.state in OPENING and owner.config.key != "ask"

    def _owner(self, config: TombConfig) -> Owner:
        return Owner(
            config,
            self._works(config),
            jobs=self._jobs,
            changed=self._settled,
            on_open=self._on_open,
            on_closed=self._closing,
        )

    def _closing(self, name: str) -> Awaitable[None] | None:
        """A tomb is about to be closed, or is gone: those inside it are closed before it."""
        told = self._on_closed(name)
        owner = self._owners[name]
        inside = [nest.volume.config.name for nest in owner.nest.inner()]
        polite = owner.life.work is Action.UNMOUNT
        return self._close_inside(owner, inside, told) if polite and inside else told

    async def _close_inside(
        self, outer: Owner, inside: Iterable[str], told: Awaitable[None] | None
    ) -> None:
        for name in inside:
            owner = self._owners[name]
            if owner.life.state is TombState.OPEN:
                options = {"force": bool(outer.force), "patience": outer.force}
                view = await owner.close(0, options).wait()
                if view.result is not JobResult.DONE:
                    raise Busy(f"Tomb {name} is inside it, and stays open: {view.error}")
        if told is not None:
            await told

    def _settled(self) -> None:
        self._moved.set()
        self._moved.clear()
        if self._behind:
            self._apply()
        devices = {*self._open_nodes(), *self._remote_drives()}
        self._kernel_log.listen(self._heard, frozenset(devices))
        self._announce()
        self._changed()

    def _open_nodes(self) -> dict[str, Owner]:
        """The owners of what is open, by the kernel's name of the mapping (`dm-0`)."""
        owners = (owner for owner in self._owners.values() if owner.life.state is TombState.OPEN)
        return {owner.node: owner for owner in owners if owner.node}

    def _heard(self, node: str) -> None:
        """The kernel has something to say about a device: perhaps that it has errors."""
        if owner := self._open_nodes().get(node):
            owner.doubt()
        if device := self._remote_drives().get(node):
            self._remote.doubt(device)

    def _remote_drives(self) -> dict[str, Device]:
        """The drives on the network that answer to a tomb, by the kernel's name (`nbd0`)."""
        there = list(filter(remote.is_remote, self._devices.values()))
        found = (device for config in self._wanted.values() for device in candidates(config, there))
        return {remote.name(device): device for device in found}

    def _standing(self, device: Device) -> list[dm.Mapping]:
        """Our mappings that stand on a drive."""
        volumes = [owner.volume for owner in self._owners.values()]
        return [m for v in volumes for m in v.state().mappings if v.base(m) == device.number]

    def _announce(self) -> None:
        """Whoever logs in learns of what is so, once all is known of every tomb."""
        owners = self._owners.values()
        if self._started and all(owner.known for owner in owners):
            self._announcements.follow([owner.place for owner in owners], self._abandoned.places)
            if all(owner.settled for owner in owners):
                self.settled.set()

    def start(self) -> None:
        """Take over what is there. Devices told before belong to it."""
        self._started = True
        self._abandoned.start(self._targets())
        for owner in self._owners.values():
            owner.start(self._devices)
        for device in self._remote_drives().values():
            # It may have ended while nobody listened.
            self._remote.doubt(device)

    def coming(self) -> None:
        """The kernel has a new drive, of which udev is going to tell."""
        if any(owner.awaiting for owner in self._owners.values()):
            self._headstart.prepare()

    def device(self, event: DeviceEvent) -> None:
        """A block device came, changed or went."""
        if event.what is What.REMOVED:
            self._devices.pop(event.device.key, None)
            self._nudge.set()
            if self._behind:
                # It may be the mapping that somebody held.
                self._settled()
        else:
            self._devices[event.device.key] = event.device
        self._look()

    def mounts(self, reading: Reading) -> None:
        """The mount table changed."""
        for owner in tuple(self._owners.values()):
            owner.seen(reading)
        if self._abandoned.look(self._targets(), reading):
            self._changed()
        self._announce()
        self._look()

    def _look(self) -> None:
        if self._started:
            for owner in self._owners.values():
                owner.look(self._devices)

    def home(self) -> str:
        """The name of the tomb that is open at /var/home, or the empty string."""
        for name, owner in self._owners.items():
            if owner.life.state is TombState.OPEN and owner.view.mount_point == HOME:
                return name
        return ""

    def problems(self) -> tuple[Problem, ...]:
        found = [p for owner in self._owners.values() for p in owner.problems()]
        found += self._abandoned.problems()
        refused = self._announcements.problem
        return (*found, refused) if refused else tuple(found)

    def reload(self, configs: Iterable[TombConfig]) -> None:
        """Another configuration. What is open stays so, under the old one until it is closed."""
        self._wanted = {config.name: config for config in configs}
        self._apply()
        self._announcements.look_again()
        self._announce()

    @property
    def _behind(self) -> bool:
        """Whether the configuration is another than that of a tomb which was in use."""
        return any(o.config != self._wanted.get(name) for name, o in self._owners.items())

    def _apply(self) -> None:
        for name, config in self._wanted.items():
            owner = self._owners.get(name)
            if owner is None:
                owner = self._owners[name] = self._owner(config)
                if self._started:
                    owner.start(self._devices)
            elif owner.config != config:
                owner.reconfigure(config, self._works(config))
        for name in set(self._owners) - set(self._wanted):
            if self._owners[name].idle:
                self._owners.pop(name).end()
        self._abandoned.look(self._targets(), Reading())

    def _targets(self) -> set[str]:
        return {owner.volume.target for owner in self._owners.values()}

    async def _put_away(self, owner: Owner) -> None:
        """Close it, whatever it is doing: an opening is taken back, and a closing waited for.

        Somebody may have asked for that just now, or systemd have unmounted it: the mapping, with
        the key in it, is to go as well.
        """
        while owner.life.work and owner.life.state not in OPENING:
            await self._moved.wait()
        if owner.life.state is TombState.OPEN or owner.life.state in OPENING:
            await owner.close(0, {"force": True}).wait()

    async def stop(self, close: bool) -> None:
        """End all owners; with `close` the open tombs are closed first, and holders ended."""
        for owner in tuple(self._owners.values()):
            await owner.leave()
        self._announcements.close()
        if close:
            # Those inside others first, and all at once that are equally deep.
            owners = list(self._owners.values())
            for level in sorted({depth(o.volume.target) for o in owners})[::-1]:
                equal = [o for o in owners if depth(o.volume.target) == level]
                await asyncio.gather(*map(self._put_away, equal))
        for owner in tuple(self._owners.values()):
            await owner.stop()
        self._headstart.close()
        self._remote.stop()
        self._kernel_log.leave(self._heard)
