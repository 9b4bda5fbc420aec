"""What keeps an open tomb company: its targets, and the administrator's hooks, in turn.

Opened: its binds, the hooks `opened`, then the targets. Closed politely: the targets, the hooks
`closing`, and only then is anything unmounted; the hooks `closed` when all is done. A drive that
was pulled waits for nobody: the targets go, and the hooks `lost` are run when the rest is gone.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from immud import log
from immud.early import mountinfo
from immud.errors import ImmudError
from immud.integration.hooks import About, Event, Hooks
from immud.integration.targets import HOME_TARGET, Targets, target_of
from immud.model import Problem, TombState
from immud.systemd import Systemd
from immud.tomb.tombs import HOME

# What units that belong to an open tomb get to stop before it is unmounted, seconds.
FAREWELL = 10.0
TOLD = "/run/immud/told"


Attach = Callable[[], Awaitable[None]]


class HookFailed(ImmudError):
    """A hook that is to run before a tomb is closed failed, and it stays open."""

    name = "HookFailed"


class Company:
    """One for all tombs. What concerns one tomb happens in turn, whatever the others do."""

    def __init__(
        self,
        systemd: Systemd,
        changed: Callable[[], None],
        *,
        hooks: Hooks | None = None,
        told: str = TOLD,
    ) -> None:
        self._targets = Targets(systemd)
        self._hooks = hooks or Hooks(systemd, changed)
        self._told = told
        self._on_bus = asyncio.Event()
        self._turns: dict[str, asyncio.Task[None]] = {}
        self._open: set[str] = set()
        self._leaving: dict[str, tuple[About, Event]] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self._hooks.problems

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        """What is under way, for whoever ends the loop."""
        return (*(t for t in self._turns.values() if not t.done()), *self._targets.tasks)

    def connected(self) -> None:
        """There is a bus, over which systemd can be asked for something."""
        self._on_bus.set()
        self._targets.sync()

    def opened(self, about: About, attach: Attach) -> None:
        """The tomb is open, or open still: said again after a restart, or a closing that failed.

        `attach` puts its binds in place where they are not.
        """
        self._leaving.pop(about.name, None)
        self._open.add(about.name)
        self._turn(about.name, self._welcome(about, attach))

    def closed(self, about: About, *, polite: bool) -> Awaitable[None]:
        """It is about to be closed, or is gone; to be awaited by who closes politely.

        Raises HookFailed where a hook says that it is not to be closed now.
        """
        self._open.discard(about.name)
        # Without a bus nobody was told that it is open.
        if told := self._on_bus.is_set():
            self._leaving[about.name] = (about, Event.CLOSED if polite else Event.LOST)
        for target in _targets(about):
            self._targets.want(target, up=False)
        if not (polite and told) and (running := self._turns.get(about.name)):
            running.cancel()
        return self._turn(about.name, self._farewell(about, polite=polite))

    def look(self, states: Mapping[str, TombState]) -> None:
        """What has become of those that were to be closed."""
        for name, (about, event) in tuple(self._leaving.items()):
            state = states.get(name, TombState.ABSENT)
            if state is TombState.LOST:
                self._leaving[name] = (about, Event.LOST)
            elif state is not TombState.CLOSING:
                del self._leaving[name]
                self._turn(name, self._run(event, about))

    async def finish(self, seconds: float) -> None:
        """Let what is under way come to its end, where there is a bus to bring it there."""
        if self._on_bus.is_set() and (tasks := self.tasks):
            await asyncio.wait(tasks, timeout=seconds)

    def _turn(self, name: str, step: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        before = self._turns.get(name)

        async def run() -> None:
            if before is not None:
                await asyncio.wait((before,))
            await step

        task = asyncio.get_running_loop().create_task(
            run(), name=f"hooks or targets for tomb {name}"
        )
        task.add_done_callback(_ended)
        # A coroutine that is never awaited complains of that, and a task may not even begin.
        task.add_done_callback(lambda _: step.close())
        self._turns[name] = task
        return task

    async def _welcome(self, about: About, attach: Attach) -> None:
        await attach()
        if self._is_news(about):
            await self._run(Event.OPENED, about)
            self._remember(about)
        # A hook takes its time, and it may be on its way out again.
        for target in _targets(about) if about.name in self._open else ():
            self._targets.want(target, up=True)

    async def _farewell(self, about: About, *, polite: bool) -> None:
        self._forget(about)
        if not polite:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self._targets.settled(*_targets(about))
        if failed := await self._hooks.run(Event.CLOSING, about):
            force = f"immud close --force {about.name}"
            raise HookFailed(
                f"Tomb {about.name} stays open (to close it all the same: {force}). {failed[0]}"
            )

    async def _run(self, event: Event, about: About) -> None:
        """Nobody waits for these, so they wait for the bus."""
        if self._hooks.any(event):
            await self._on_bus.wait()
            await self._hooks.run(event, about)

    # The daemon may be restarted while a tomb is open, and nobody wants to hear of that.

    def _mount(self, about: About) -> str:
        top = mountinfo.top(mountinfo.read(), about.mount_point)
        return f"{top.id} {top.dev}" if top else ""

    def _is_news(self, about: About) -> bool:
        try:
            with open(f"{self._told}/{about.name}", encoding="ascii") as file:
                return file.read() != self._mount(about)
        except OSError:
            return True

    def _remember(self, about: About) -> None:
        # A full /run means at worst that hooks are run once more than they should.
        with suppress(OSError):
            os.makedirs(self._told, exist_ok=True)
            with open(f"{self._told}/{about.name}", "w", encoding="ascii") as file:
                file.write(self._mount(about))

    def _forget(self, about: About) -> None:
        with suppress(FileNotFoundError):
            os.unlink(f"{self._told}/{about.name}")


def _ended(turn: "asyncio.Task[None]") -> None:
    """Not everybody waits for a turn; what a hook did is told by the hooks."""
    error = None if turn.cancelled() else turn.exception()
    if error and not isinstance(error, ImmudError):
        log.get().defect(f"Internal error while running {turn.get_name()}.", error)


def _targets(about: About) -> tuple[str, ...]:
    home = (HOME_TARGET,) if about.mount_point == HOME else ()
    return (target_of(about.name), *home)
