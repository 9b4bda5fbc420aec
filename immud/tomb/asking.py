"""What is asked of a tomb: each a job that ends when nothing is under way any more.

An opening that begins by itself and a purge are jobs as well, so that they can be seen.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from immud.errors import ImmudError, WrongState
from immud.jobs import Jobs, RunningJob
from immud.model import TombState
from immud.tomb.closing import POLITE
from immud.tomb.machine import (
    IDLE,
    OPENING,
    Cancelled,
    CloseAsked,
    Life,
    OpenAsked,
    refusal,
)


def patience(options: Mapping[str, Any]) -> float:
    """What holders get to end of themselves, seconds; 0 where they are left alone."""
    return float(options.get("patience", POLITE)) if options.get("force") else 0.0


@dataclass(frozen=True, slots=True)
class Asked:
    """An event somebody waits for the outcome of."""

    event: OpenAsked | CloseAsked
    outcome: "asyncio.Future[Life]"
    passphrase: bytes | None = field(default=None, repr=False)
    force: float = 0.0
    read_only: bool = False


class Asking:
    """The jobs of one tomb, which has `name` and, on the bus, `path`.

    `life` tells how it is now, `reason` what stood in the way last; `put` hands the
    tomb's owner what is asked of it.
    """

    def __init__(
        self,
        name: str,
        path: str,
        jobs: Jobs,
        *,
        life: Callable[[], Life],
        reason: Callable[[], ImmudError | None],
        put: Callable[[Asked | Cancelled], None],
    ) -> None:
        self._name = name
        self._path = path
        self._jobs = jobs
        self._life = life
        self._reason = reason
        self._put = put
        self._waiting: list[asyncio.Future[Life]] = []
        self._unheard: set[asyncio.Future[Life]] = set()
        self._over = False

    def ask(
        self, operation: str, uid: int, event: OpenAsked | CloseAsked, **fields: Any
    ) -> RunningJob:
        """A job for `event`, with the other `fields` of Asked. Raises WrongState."""
        self.permit(event)

        async def work(job: RunningJob) -> None:
            if self._over:
                raise WrongState(
                    f"Tomb {self._name}: it is not configured any more, or immud is stopping."
                )
            outcome: asyncio.Future[Life] = asyncio.get_running_loop().create_future()
            self._unheard.add(outcome)
            outcome.add_done_callback(self._unheard.discard)
            self._put(Asked(event, outcome, **fields))
            await self._settled(outcome, operation)

        return self._jobs.start(operation, self._path, uid, work)

    def permit(self, event: OpenAsked | CloseAsked) -> None:
        """Raises WrongState where the tomb is in no state for it."""
        if why := refusal(self._life(), event):
            raise WrongState(f"Tomb {self._name}: {why}")

    def wait(self, asked: Asked) -> None:
        """The turn of `asked` has come: it ends when nothing is under way."""
        self._waiting.append(asked.outcome)

    def follow(self) -> None:
        """Give a job to what happens of itself, if none has asked for it."""
        if self._waiting:
            return
        state = self._life().state
        operation = "open" if state in OPENING else "purge" if state is TombState.LOST else "close"
        outcome: asyncio.Future[Life] = asyncio.get_running_loop().create_future()
        self._waiting.append(outcome)

        async def work(job: RunningJob) -> None:
            await self._settled(outcome, operation)

        self._jobs.start(operation, self._path, 0, work)

    def settle(self) -> None:
        """Nothing is under way: so it is, for all who waited."""
        waiting, self._waiting = self._waiting, []
        for outcome in waiting:
            if not outcome.done():
                outcome.set_result(self._life())

    def cancel(self) -> None:
        """There will be no outcome: not of what waits for its turn, nor of what is asked yet."""
        self._over = True
        for outcome in (*self._waiting, *self._unheard):
            outcome.cancel()

    def progress(self, fraction: float) -> None:
        """Show on the jobs people wait for how far the work is."""
        for job in self._jobs.running.values():
            if job.view.object == self._path:
                job.progress(fraction)

    async def _settled(self, outcome: "asyncio.Future[Life]", operation: str) -> None:
        """Wait until nothing is under way; raise what stood in the way of the operation."""
        try:
            life = await asyncio.shield(outcome)
        except asyncio.CancelledError:
            self._put(Cancelled())
            await asyncio.shield(outcome)
            raise
        # A drive that is back already may have been opened when the purge is heard of.
        wanted = {"open": life.state is TombState.OPEN, "purge": True}
        if life.error or not wanted.get(operation, life.state in IDLE):
            raise self._reason() or ImmudError(
                life.error or f"Tomb {self._name} is {life.state} now."
            )
