"""immud-tomb.target: up while the home tomb is open, whenever the bus lets us say so."""

import asyncio

from immud import log
from immud.errors import ImmudError
from immud.systemd import Systemd

TARGET = "immud-tomb.target"


class TombTarget:
    """Keeps the target as wanted. A wish made while there is no bus is kept until there is one."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd
        self._log = log.get(unit=TARGET)
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        """What is under way, for whoever ends the loop."""
        return (self._task,) if self._task else ()

    def want(self, up: bool) -> None:
        """From now on the target is to be up, or not."""
        self._wanted = up
        self.sync()

    def sync(self) -> None:
        """Bring the target to what is wanted; a running attempt is done first."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._sync(), name=TARGET)

    async def settled(self) -> None:
        """Wait until the target is what is wanted, or cannot be for now."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _sync(self) -> None:
        done: bool | None = None
        while done != self._wanted:
            done = self._wanted
            try:
                if done:
                    await self._systemd.start_unit(TARGET)
                else:
                    await self._systemd.stop_unit(TARGET)
            except ImmudError as error:
                self._log.debug(f"{TARGET} has to wait: {error}")
