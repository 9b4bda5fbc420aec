"""The one work of a tomb that may be under way, beside the task that owns the tomb."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from immud import log
from immud.errors import ImmudError
from immud.tomb.machine import Action, Done, Failed


@dataclass(frozen=True, slots=True)
class Ended:
    """A work ended; heard only while that work is the one under way."""

    work: "asyncio.Task[None]"
    event: Done | Failed


class UnderWay:
    """Its end is told with `put`, unless it was stopped; `reason` is why one failed last."""

    def __init__(self, tomb: str, put: Callable[[Ended], None]) -> None:
        self.reason: ImmudError | None = None
        self._tomb = tomb
        self._put = put
        self._work: asyncio.Task[None] | None = None

    def begin(self, action: Action, work: Coroutine[Any, Any, None]) -> None:
        if action in (Action.UNLOCK, Action.UNMOUNT):
            self.reason = None
        name = f"{action} tomb {self._tomb}"
        self._work = asyncio.get_running_loop().create_task(work, name=name)
        self._work.add_done_callback(self._end)

    def over(self, ended: Ended) -> bool:
        """Whether what ended is what was under way; then nothing is any more."""
        if ended.work is not self._work:
            return False
        self._work = None
        return True

    async def stop(self) -> None:
        """End it, and hear nothing of it."""
        work, self._work = self._work, None
        if work and not work.done():
            work.cancel()
            await asyncio.wait((work,))

    def _end(self, work: "asyncio.Task[None]") -> None:
        if work.cancelled():
            return
        error = work.exception()
        event: Done | Failed = Done()
        if error is not None:
            if isinstance(error, ImmudError):
                self.reason = error
            else:
                # A defect of ours, or an errno nobody thought of: the journal gets it all.
                log.get(tomb=self._tomb).defect(f"A work of tomb {self._tomb} failed.", error)
                self.reason = ImmudError(f"{type(error).__name__}: {error}")
            event = Failed(str(self.reason))
        self._put(Ended(work, event))
