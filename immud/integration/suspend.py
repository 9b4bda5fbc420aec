"""Closing tombs before the system sleeps, for those that say `on_suspend = "close"`.

A machine that sleeps has the key in its memory. logind waits for whoever holds a delay lock
(https://systemd.io/INHIBITOR_LOCKS/), for five seconds by default: long enough to ask those in the
way to end, to end them, and to close. What was closed is opened again when the system wakes up,
with a question where its key is one. Nothing is listened to unless such a tomb is open, or being
opened: one that waits for the last holder of a fallback home is unlocked for as long as that takes.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from immud import log
from immud.bus.adapter import NO_AUTO_START, BusError, Connection, Disconnected, Signal
from immud.bus.standard import DBUS
from immud.errors import WrongState
from immud.model import JobResult, Problem, Severity, TombState
from immud.tomb.fs.nesting import depth
from immud.tomb.machine import OPENING
from immud.tomb.owner import Owner

NAME = "org.freedesktop.login1"
PATH = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"
RULES = (
    f"type='signal',sender='{NAME}',path='{PATH}',interface='{MANAGER}',member='PrepareForSleep'",
    f"type='signal',sender='{DBUS}',member='NameOwnerChanged',arg0='{NAME}'",
)
DELAY = 5.0
"""Seconds; InhibitDelayMaxSec of logind.conf(5)."""
SPARE = 0.5
"""Seconds of that left for the last steps."""
RETURN = 60.0
"""Seconds a drive has to be there again after the system woke up."""
_UNLOCKED = OPENING | {TombState.OPEN}


class Suspend:
    """`connection` gives the current one, or None; `tombs` the owners by name.

    `look` is to be called after anything about a tomb or the bus has changed.
    """

    def __init__(
        self,
        connection: Callable[[], Connection | None],
        tombs: Callable[[], Mapping[str, Owner]],
        changed: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._tombs = tombs
        self._changed = changed
        self._log = log.get()
        self._error = ""
        self._task: asyncio.Task[None] | None = None
        self._news: asyncio.Queue[bool | None] = asyncio.Queue()
        self._lock = -1
        # What was closed, and is opened again: whether it was read-only.
        self._closed: dict[str, bool] = {}
        self._until = 0.0

    @property
    def problems(self) -> tuple[Problem, ...]:
        if not self._error:
            return ()
        text = f"Tombs will stay open when the system sleeps: {self._error}"
        return (Problem(Severity.WARNING, "suspend-unguarded", text),)

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        """What is under way, for whoever ends the loop."""
        return (self._task,) if self._task and not self._task.done() else ()

    def look(self) -> None:
        """Begin to listen where a tomb wants it, or see what there is to do."""
        if self.tasks:
            self._news.put_nowait(None)
        elif self._wanted() and (connection := self._connection()):
            self._news = asyncio.Queue()
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._guard(connection), name="suspend")
            self._task.add_done_callback(lambda _: self._ended(connection))

    def _ended(self, connection: Connection) -> None:
        """There may be another connection by the time that the end of one was noticed."""
        if self._connection() not in (None, connection):
            self.look()

    def _wanted(self) -> list[Owner]:
        """The tombs that are to be closed, the deepest first."""
        found = [
            owner
            for owner in self._tombs().values()
            if owner.config.on_suspend == "close" and owner.life.state in _UNLOCKED
        ]
        return sorted(found, key=lambda owner: -depth(owner.volume.target))

    async def _guard(self, connection: Connection) -> None:
        try:
            async with self._listening(connection):
                while (self._wanted() or self._closed) and not connection.lost.done():
                    if self._wanted() and self._lock < 0 and not self._asleep:
                        await self._inhibit(connection)
                    await self._take(await self._news.get(), connection)
        except (BusError, Disconnected, TimeoutError) as error:
            self._log.debug(f"logind cannot be reached for now: {error}")
        finally:
            self._release()
            self._complain("")

    @property
    def _asleep(self) -> bool:
        return bool(self._closed) and not self._until

    async def _take(self, sleeping: bool | None, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        if self._until and loop.time() > self._until:
            self._closed.clear()
        if sleeping:
            self._until = 0.0
            await self._close(await self._delay(connection))
            self._release()
        elif sleeping is not None:
            self._until = loop.time() + RETURN
        if self._until:
            self._open_again()

    async def _close(self, seconds: float) -> None:
        """Close them within that time, whoever is in the way."""
        wanted, began = self._wanted(), asyncio.get_running_loop().time()
        names = [owner.config.name for owner in wanted]
        names += [nest.volume.config.name for owner in wanted for nest in owner.nest.inner()]
        owners = [self._tombs()[name] for name in names]
        unlocked = [owner for owner in owners if owner.life.state in _UNLOCKED]
        # Of the sleep before, one may still be there that waits for its drive.
        self._closed |= {owner.config.name: owner.read_only for owner in unlocked}
        # Half of the time for those who are told, a quarter to end, the rest to be ended.
        options = {"force": True, "patience": seconds / 4}
        for owner in wanted:
            left = began + seconds - asyncio.get_running_loop().time()
            with suppress(WrongState, TimeoutError):
                view = await asyncio.wait_for(owner.close(0, options).wait(), max(left, 0.1))
                if view.result is not JobResult.DONE:
                    self._log.warning(f"Tomb {owner.config.name} is not closed: {view.error}")
            state = owner.life.state
            if state not in (TombState.PRESENT, TombState.ABSENT):
                self._log.error(
                    f"Tomb {owner.config.name} is {state} as the system goes to sleep, which does "
                    "not wait any longer; its key is in the memory.",
                    message_id=log.MessageId.SLEEP_OPEN,
                )

    def _open_again(self) -> None:
        for name, read_only in tuple(self._closed.items()):
            owner = self._tombs().get(name)
            if owner is None or owner.life.state in (TombState.OPEN, TombState.FAILED):
                del self._closed[name]
            elif owner.life.state is TombState.PRESENT:
                del self._closed[name]
                with suppress(WrongState):
                    owner.open(0, {"read-only": read_only}, None)

    async def _delay(self, connection: Connection) -> float:
        try:
            (microseconds,) = await connection.call(
                *(NAME, PATH, PROPERTIES, "Get", "ss", MANAGER, "InhibitDelayMaxUSec"), timeout=1
            )
        except (BusError, Disconnected, TimeoutError):
            return DELAY - SPARE
        return max(float(microseconds) / 1e6 - SPARE, SPARE)

    async def _inhibit(self, connection: Connection) -> None:
        try:
            (self._lock,) = await connection.call(
                *(NAME, PATH, MANAGER, "Inhibit", "ssss"),
                *("sleep", "immud", "Tombs are closed before the system sleeps", "delay"),
                flags=NO_AUTO_START,
            )
        except (BusError, TimeoutError) as error:
            self._complain(f"logind does not let us delay that: {error}")
        else:
            self._complain("")

    def _release(self) -> None:
        """Let the system go to sleep."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _complain(self, error: str) -> None:
        if error != self._error:
            self._error = error
            self._changed()

    @asynccontextmanager
    async def _listening(self, connection: Connection) -> AsyncIterator[None]:
        def listener(signal: Signal) -> None:
            what = (signal.interface, signal.member, signal.signature)
            if what == (MANAGER, "PrepareForSleep", "b") and signal.path == PATH:
                self._news.put_nowait(bool(signal.body[0]))
            elif what == (DBUS, "NameOwnerChanged", "sss") and signal.body[0] == NAME:
                # Another logind knows nothing of our lock.
                self._release()
                self._news.put_nowait(None)

        def lost(_: object) -> None:
            self._news.put_nowait(None)

        connection.on_signal.append(listener)
        connection.lost.add_done_callback(lost)
        try:
            for rule in RULES:
                await connection.call_bus("AddMatch", "s", rule)
            yield
        finally:
            connection.lost.remove_done_callback(lost)
            connection.on_signal.remove(listener)
            for rule in RULES:
                with suppress(BusError, Disconnected, TimeoutError):
                    await connection.call_bus("RemoveMatch", "s", rule)
