"""All that goes along with tombs besides opening and closing them: targets, hooks, sleep.

Composition only: it tells those who do it what the tombs' owners say.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from immud.bus.adapter import Connection
from immud.integration.hooks import About
from immud.integration.sequence import Company
from immud.integration.suspend import Suspend
from immud.model import Problem
from immud.service import Changed
from immud.systemd import PRIVATE, Systemd
from immud.tomb.machine import Action
from immud.tomb.owner import Owner

# What is to be run after the tombs are closed gets this long when the system stops, seconds.
LAST_WORDS = 5.0


class Companions:
    """`tombs` gives the owners by name, `bus` the current connection or None."""

    def __init__(
        self,
        tombs: Callable[[], Mapping[str, Owner]],
        bus: Callable[[], Connection | None],
        changed: Changed,
    ) -> None:
        self._tombs = tombs
        self._bus = bus
        self._direct: Connection | None = None
        self._company = Company(Systemd(self._to_systemd), changed)
        self._suspend = Suspend(bus, tombs, changed)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return (*self._company.problems, *self._suspend.problems)

    def _to_systemd(self) -> Connection | None:
        return self._direct or self._bus()

    def connected(self, _: Connection) -> None:
        """There is a bus."""
        self._company.connected()
        self._suspend.look()

    def look(self) -> None:
        """Something about a tomb has changed."""
        self._company.look({name: owner.life.state for name, owner in self._tombs().items()})
        self._suspend.look()

    def opened(self, name: str) -> None:
        """For `Tombs`: a tomb is open."""
        self._company.opened(self._about(name), self._tombs()[name].attach)

    def closed(self, name: str) -> Awaitable[None]:
        """For `Tombs`: it is about to be closed, or gone; who closes it politely waits for this."""
        polite = self._tombs()[name].life.work is Action.UNMOUNT
        return self._company.closed(self._about(name), polite=polite)

    def _about(self, name: str) -> About:
        view = self._tombs()[name].view
        return About(name, view.mount_point, view.uuid)

    async def system_stops(self) -> None:
        """From now on do without the bus, which goes down beside us: hooks are still to be run."""
        with suppress(OSError, TimeoutError):
            self._direct = await Connection.open(PRIVATE, direct=True)
            self._company.connected()

    async def close(self, *, finish: bool) -> None:
        """End what is under way; with `finish` it gets a moment to come to its own end."""
        if finish:
            await self._company.finish(LAST_WORDS)
        tasks = (*self._company.tasks, *self._suspend.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._direct:
            self._direct.close()
