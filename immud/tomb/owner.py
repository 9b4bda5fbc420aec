"""One task owns one volume: it takes events in turn, asks the machine, and sees to the works.

A work runs beside the owner, so that a pulled drive is noticed while a checker
runs or a person is being asked. Events are hints: what is there is looked up
when the event's turn has come.
"""

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from immud import log
from immud.bus import names
from immud.errors import ImmudError, WrongState
from immud.jobs import Jobs, RunningJob
from immud.model import Problem, TombConfig, TombState, TombView
from immud.tomb import report
from immud.tomb.absence.announce import Place
from immud.tomb.asking import Asked, Asking, patience
from immud.tomb.drives.sight import Sight
from immud.tomb.fs.nesting import Nest
from immud.tomb.fs.vigil import Vigil
from immud.tomb.machine import (
    IDLE,
    OPENING,
    Action,
    CloseAsked,
    Event,
    Life,
    Missing,
    OpenAsked,
    step,
)
from immud.tomb.underway import Ended, UnderWay
from immud.tomb.volume import Volume
from immud.tomb.works import Order, Works
from immud.watch.devices import Device
from immud.watch.table import Reading

Told = Callable[[str], Awaitable[None] | None]


class Look:
    """Some device or mount changed: see what that means for this tomb."""


class Owner:
    """Implements `immud.service.Tomb`. All methods are for the one event loop."""

    def __init__(
        self,
        config: TombConfig,
        works: Works,
        *,
        jobs: Jobs,
        changed: Callable[[], None],
        on_open: Told,
        on_closed: Told,
    ) -> None:
        self.config = config
        self.path = names.tomb_path(config.name)
        self._log = log.get(tomb=config.name)
        self._works = works
        self._changed = changed
        self._on_open = on_open
        self._on_closed = on_closed
        # Whether what an earlier daemon left is taken over, and `life` is so.
        self.known = False
        self._life = Life(auto_open=config.auto_open)
        self._sight = Sight(config)
        self._mapper = ""
        self.node = ""
        self._vigil = Vigil(changed)
        self._inbox: asyncio.Queue[Look | Asked | Ended | Event] = asyncio.Queue()
        self._due = False
        self._under_way = UnderWay(config.name, self._inbox.put_nowait)
        self._passphrase: bytes | None = None
        self._force = 0.0
        self._read_only = False
        self._leaving = self._over = False
        self._farewell: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._asking = Asking(
            config.name,
            self.path,
            jobs,
            life=lambda: self._life,
            reason=lambda: self._under_way.reason,
            put=self._inbox.put_nowait,
        )

    @property
    def volume(self) -> Volume:
        return self._works.volume

    @property
    def life(self) -> Life:
        return self._life

    @property
    def view(self) -> TombView:
        life, device = self._life, self._sight.shown(self._life)
        return TombView(
            name=self.config.name,
            state=life.state,
            uuid=device.uuid if device else self.config.uuid,
            label=device.label if device else self.config.label,
            device=device.devnode if device else "",
            mapper=self._mapper,
            mount_point=self.volume.target,
            auto_open=self.config.auto_open,
            last_error=life.error,
            absent=self._works.fallback.mode,
            fs_type=self._vigil.health.fs_type,
            read_only=self._vigil.health.read_only,
        )

    @property
    def read_only(self) -> bool:
        """Whether it cannot be written to, or will not be once it is open."""
        return self._read_only or self._vigil.health.read_only

    def problems(self) -> tuple[Problem, ...]:
        """What a person should know about this tomb."""
        return (
            *report.problems(
                self.config, self._life, self.volume, self._sight.devices, self._vigil.health
            ),
            *self._works.fallback.problems(is_open=self._life.state is TombState.OPEN),
        )

    def open(self, uid: int, options: Mapping[str, Any], passphrase: bytes | None) -> RunningJob:
        """Open it; a passphrase answers the question that may be pending. Raises WrongState.

        With `read-only` (bool) nothing is written to it, not even by a checker.
        """
        event = OpenAsked(answer=passphrase is not None)
        read_only = bool(options.get("read-only"))
        return self._asking.ask("open", uid, event, passphrase=passphrase, read_only=read_only)

    def close(self, uid: int, options: Mapping[str, Any]) -> RunningJob:
        """Close it; `force` (bool) ends who is in the way. Raises WrongState.

        `patience` is what they get to end of themselves, in seconds.
        """
        return self._asking.ask("close", uid, CloseAsked(), force=patience(options))

    def eject(self, uid: int, options: Mapping[str, Any]) -> RunningJob:
        """Close it and switch the drive off; options as for `close`. Raises WrongState."""
        event = CloseAsked(eject=True)
        return self._asking.ask("eject", uid, event, force=patience(options))

    def start(self, devices: Mapping[str, Device]) -> None:
        """Find what is there, take it over as it is, and go on from it."""
        self._sight.devices = dict(devices)
        self._works.fallback.ensure()
        self._task = asyncio.get_running_loop().create_task(
            self._own(), name=f"tomb {self.config.name}"
        )

    def look(self, devices: Mapping[str, Device]) -> None:
        """These are the devices now; and the mount table may be another."""
        self._sight.devices = dict(devices)
        # A thousand drives at once are one look, and not a thousand.
        if not self._due:
            self._due = True
            self._inbox.put_nowait(Look())

    @property
    def settled(self) -> bool:
        """Whether the place is what it is going to be, unless somebody does something."""
        opening = self._life.work is not None and self.config.key != "ask"
        return self.known and self._works.fallback.ready and not opening

    @property
    def place(self) -> Place:
        """The tomb's place, as who logs in would meet it."""
        is_open = self._life.state is TombState.OPEN
        return Place(self.config, self._works.fallback.mode, is_open)

    def seen(self, reading: Reading) -> None:
        """This is the mount table now."""
        self._works.fallback.seen(reading)

    @property
    def nest(self) -> Nest:
        """Its place among those of the others."""
        return self._works.nest

    @property
    def force(self) -> float:
        """What holders get to end of themselves, seconds; 0 where they are left alone."""
        return self._force

    @property
    def awaiting(self) -> bool:
        """Whether it would open with a key of its own if its drive came."""
        config = self.config
        absent = self.known and self._life.state in (TombState.ABSENT, TombState.LOST)
        return absent and self._life.auto_open and config.encrypted and config.key != "ask"

    @property
    def idle(self) -> bool:
        """Whether nothing is open and nothing under way, and no key is left in a mapping."""
        return self._life.state in IDLE and not self.volume.unwiped()

    def end(self) -> None:
        """The end of an idle owner, whose tomb is not configured any more."""
        # This may be running in its task, which has more in its inbox.
        self._over = True
        if self._task:
            self._task.cancel()
        self._asking.cancel()

    async def leave(self) -> None:
        """Put nothing in the tomb's place any more: whoever stops everything unmounts it."""
        self._leaving = True
        await self._works.fallback.close()

    async def stop(self) -> None:
        """Let go of the volume as it is: what is open stays open."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._under_way.stop()
        self._vigil.stop()
        self._asking.cancel()
        await self.leave()

    async def _own(self) -> None:
        found = self._sight.found(self.volume)
        self._works.nest.settle()
        await self._take(found)
        self.known = True
        self._changed()
        while not self._over:
            item = await self._inbox.get()
            try:
                await self._handle(item)
            except Exception as error:
                # A defect, but a drive that is pulled next still has to be dealt with.
                self._log.defect(f"Tomb {self.config.name} could not deal with {item!r}.", error)

    async def _handle(self, item: Look | Asked | Ended | Event) -> None:
        if isinstance(item, Asked):
            await self._take_asked(item)
        elif isinstance(item, Ended):
            if self._under_way.over(item):
                await self._take(item.event)
        elif isinstance(item, Look):
            self._due = False
            await self._look()
        else:
            await self._take(item)

    async def _take_asked(self, asked: Asked) -> None:
        try:
            # Things may have changed between the asking and its turn.
            self._asking.permit(asked.event)
        except WrongState as error:
            asked.outcome.set_exception(error)
            return
        self._passphrase, self._force = asked.passphrase, asked.force
        # Who answers the question of an opening does not have to say again how it is to be.
        answering = self._life.state in OPENING
        self._read_only = asked.read_only or (self._read_only and answering)
        self._asking.wait(asked)
        await self._take(asked.event)

    async def _take(self, event: Event) -> None:
        before = self._life
        self._life, actions = step(before, event)
        report.transition(self._log, self.config.name, before, self._life)
        for action in actions:
            await self._act(action)
        if self._life.work is None:
            self._force = 0.0
            opened = before.work and self._life.state is TombState.OPEN
            if opened or before.work is Action.EJECT:
                # What it is on may be gone since, with nobody listening.
                self._inbox.put_nowait(Look())
            if before.work and self._life.state in IDLE:
                self._works.fallback.ensure()
                # By itself the collector would let the garbage of many openings add up first.
                gc.collect()
            self._read_mapping()
            if self._life.state in IDLE:
                self._read_only = False
            self._asking.settle()
        else:
            self._asking.follow()
        self._changed()

    def _read_mapping(self) -> None:
        """The mapping in use, and what the kernel calls it (`dm-0`): by its number, for udev
        may not have made the link of its name yet. Read where nothing changes it meanwhile.
        """
        mounted = self.volume.state().mounted if self._life.state is TombState.OPEN else None
        self._vigil.look(self.volume, mounted)
        self._mapper = mounted.devnode if mounted else ""
        self.node = os.path.basename(mounted.nodes[1]) if mounted else ""

    def doubt(self) -> None:
        """The kernel has something to say about the open file system: see how it is doing."""
        if self._life.state is TombState.OPEN:
            self._vigil.doubt(self.volume)

    async def _look(self) -> None:
        """Ask the kernel what the hints amount to."""
        seen = self._sight.seen(self._life, self.volume)
        if seen.lost or (seen.candidates, seen.waits) != (self._life.candidates, self._life.waits):
            await self._take(seen)
        elif self._life.state is TombState.OPEN and not self.volume.state().mounted:
            again = not self._leaving and self._works.nest.uprooted()
            await self._take(Missing(again))

    async def _act(self, action: Action) -> None:
        if action is Action.STOP:
            await self._under_way.stop()
        elif action is Action.OPENED:
            await self._tell(self._on_open)
        elif action is Action.CLOSED:
            answer = self._on_closed(self.config.name)
            # It runs either way; only who closes politely waits for it.
            self._farewell = None if answer is None else asyncio.ensure_future(answer)
        else:
            self._begin(action)

    async def _tell(self, told: Told) -> None:
        answer = told(self.config.name)
        if answer is not None:
            await answer

    def _begin(self, action: Action) -> None:
        if action is not Action.PURGE:
            self._sight.use(self._life)
        self._under_way.begin(action, self._perform(action))

    async def _perform(self, action: Action) -> None:
        if action is Action.UNMOUNT:
            await self._say_farewell()
        passphrase = None
        if action is Action.UNLOCK:
            passphrase, self._passphrase = self._passphrase, None
        pulled = "the pulled " if action is Action.PURGE else ""
        for holder in await self._works.perform(
            action,
            Order(
                *(self._sight.used, passphrase, self._force, self._read_only),
                key_drive=self._sight.key_drive(),
            ),
            self._asking.progress,
        ):
            self._log.warning(
                f"Ended {holder.command} (pid {holder.pid}, {holder.unit or 'no unit'}): "
                f"it held {pulled}tomb {self.config.name} ({holder.how}).",
            )

    async def _say_farewell(self) -> None:
        """Units that hooked themselves to the open tomb stop first, and are not in the way.

        Who was told may say no, and is not heard where the closing is forced.
        """
        farewell, self._farewell = self._farewell, None
        if farewell is None:
            return
        if not self._force:
            await farewell
            return
        with suppress(TimeoutError, ImmudError):
            async with asyncio.timeout(2 * self._force):
                await farewell

    async def attach(self) -> None:
        """See to what is to be mounted elsewhere while the tomb is open."""
        await self._works.attach()
        self._changed()

    def reconfigure(self, config: TombConfig, works: Works) -> bool:
        """Take a new configuration; False while the tomb is in use under the old one."""
        if not self.idle:
            self._works.fallback.heed(config)
            return False
        self.config = self._sight.config = config
        self._works = works
        works.fallback.ensure()
        self._life = replace(self._life, auto_open=config.auto_open)
        self._inbox.put_nowait(Look())
        return True
