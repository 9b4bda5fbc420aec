"""Targets that are up while a tomb is open, whenever the bus lets us say so.

`immud-tomb@NAME.target` goes with the tomb of that name, and `immud-tomb.target` with the one
at /var/home.
"""

import asyncio

from immud import log
from immud.errors import ImmudError
from immud.systemd import Systemd, escape

HOME_TARGET = "immud-tomb.target"


def target_of(tomb: str) -> str:
    """The target of a tomb: an instance of the template, escaped as systemd-escape(1) does it."""
    return f"immud-tomb@{escape(tomb)}.target"


class Targets:
    """Keeps the targets as wanted. A wish made while there is no bus is kept until there is one."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd
        self._wanted: dict[str, bool] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        """What is under way, for whoever ends the loop."""
        return tuple(task for task in self._tasks.values() if not task.done())

    def want(self, target: str, up: bool) -> None:
        """From now on `target` is to be up, or not."""
        self._wanted[target] = up
        self._begin(target)

    def sync(self) -> None:
        """Bring the targets to what is wanted; a running attempt is done first."""
        for target in self._wanted:
            self._begin(target)

    async def settled(self, *targets: str) -> None:
        """Wait until these are what is wanted, or cannot be for now."""
        tasks = [self._tasks[target] for target in targets if target in self._tasks]
        if tasks:
            await asyncio.wait(tasks)

    def _begin(self, target: str) -> None:
        task = self._tasks.get(target)
        if task is None or task.done():
            loop = asyncio.get_running_loop()
            self._tasks[target] = loop.create_task(self._sync(target), name=target)

    async def _sync(self, target: str) -> None:
        done: bool | None = None
        while done != self._wanted[target]:
            done = self._wanted[target]
            try:
                if done:
                    await self._systemd.start_unit(target)
                else:
                    await self._systemd.stop_unit(target)
            except ImmudError as error:
                log.get(unit=target).debug(f"{target} has to wait: {error}")
