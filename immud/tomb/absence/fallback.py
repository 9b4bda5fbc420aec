"""The fallback of one tomb: put in place while the tomb is away, and let go of by its holders.

The tomb is mounted over it. So there is no moment without the one or the other,
whoever is killed when, and what was written to it shows again when the tomb goes.
"""

import asyncio
from collections.abc import Callable, Iterable

from immud import log
from immud.child import ChildTimeout, in_child
from immud.courtesy import waiting
from immud.early import mountinfo
from immud.errors import ImmudError
from immud.model import Problem, Severity, TombConfig
from immud.tomb import holders
from immud.tomb.absence import absent, booting, volatile
from immud.tomb.absence.absent import Absent
from immud.tomb.absence.managers import UserManagers
from immud.tomb.fs.nesting import Nest
from immud.tomb.holders import Device, Holders
from immud.watch.table import Reading

# What `holders.scan` takes: devices, prefixes of paths, other namespaces too, mapped files too,
# and devices that do not count.
Guard = tuple[list[Device], list[str], bool, bool, list[Device]]

# A user database across the network gets this long, seconds.
USERS = 10.0
# The kernel says when a holder ends, but not when it closes a file or changes its directory.
AGAIN = 10.0


class Fallback:
    """Of the volume of `nest`; `changed` is called when `mode` or `problems` may differ."""

    def __init__(
        self,
        config: TombConfig,
        nest: Nest,
        managers: UserManagers,
        changed: Callable[[], None],
    ) -> None:
        self.config = config
        self.target = nest.volume.target
        self._nest = nest
        self.mode = Absent(config.absent or Absent.DIRECTORY)
        self._managers = managers
        self._changed = changed
        self._log = log.get(tomb=config.name)
        self._error = self._waits_for = ""
        self._on_return = config.on_return
        self._heeded = asyncio.Event()
        self._leaving = False
        # Whether it is in place, as far as it can be.
        self.ready = False
        self._task: asyncio.Task[None] | None = None
        self._resuming: asyncio.Future[None] | None = None

    def seen(self, reading: Reading) -> None:
        """This is the mount table now."""
        before = self.mode
        self.mode = absent.shown(reading.stack(self.target), self.target, self.config.absent)
        if self.mode != before:
            self._changed()

    def ensure(self) -> None:
        """See to it that the fallback is there; nothing waits for that but a tomb to be mounted."""
        if self._leaving:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(
                self._ensure(), name=f"fallback of tomb {self.config.name}"
            )

    async def settled(self) -> None:
        """Wait until the fallback is there, or cannot be."""
        if self._task:
            await asyncio.wait((self._task,))

    async def close(self) -> None:
        """End what is under way, and begin nothing any more; what is in place stays."""
        self._leaving = True
        if self._task:
            self._task.cancel()
            await self.settled()

    async def _ensure(self) -> None:
        self._error = ""
        if not self.ready:
            await booting.mounted(self.config.name, self.target)
        try:
            if self.config.absent in ("", Absent.VOLATILE):
                await self._make()
        except (ImmudError, OSError, RuntimeError) as error:
            self._error = str(error)
            self._log.warning(f"The fallback of tomb {self.config.name} cannot be made: {error}")
        self.ready = True
        self.seen(Reading())
        self._changed()

    async def _make(self) -> None:
        config, place = self.config, (self.target, self.config.absent)
        try:
            mode, homes = await in_child(volatile.decide, *place, False, timeout=USERS)
        except ChildTimeout:
            self._log.warning(
                "The user database does not answer: there are volatile homes only for the users "
                "in /etc/passwd."
            )
            mode, homes = await in_child(volatile.decide, *place, True)
        if mode != Absent.VOLATILE:
            return
        what = (self.target, config.absent_size, homes, absent.announcement(config))
        if await self._nest.beneath(volatile.put, *what, timeout=30):
            self._log.notice(
                f"Until tomb {config.name} is opened, {self.target} is in memory, and what is "
                "saved in it is lost at power-off."
            )

    def guard(self, own: Iterable[str] = ()) -> Guard | None:
        """How to find those who are to be waited for, or None where nobody is.

        `own` are the device numbers of the tomb: another namespace may have it mounted still,
        and who is in it there, at the same path, is not in what it is mounted over.
        """
        if self._on_return == "over":
            return None
        table = mountinfo.read()
        if entry := absent.fallback(table, self.target):
            return [holders.pair(entry.dev)], [], False, True, []
        # A directory is no file system of its own: it is known by its path.
        ground = absent.ground(table, self.target)
        spared = [holders.pair(number) for number in (*ground.inside, *own)]
        return [], list(ground.prefixes), False, False, spared

    async def free(self, found: Holders, own: Iterable[str] = ()) -> None:
        """Wait until the holders `found` of the fallback have let go, telling who they are.

        `own` as for `guard`.
        """
        try:
            while found and (guard := self.guard(own)):
                if not await self._managers.stop_abandoned(found.cgroups):
                    self._tell(holders.sentence(found.values))
                    with waiting():
                        await self._something_happens(found)
                found = Holders(await in_child(holders.scan, *guard))
        finally:
            self._tell("")

    async def _something_happens(self, found: Holders) -> None:
        self._heeded.clear()
        ends = asyncio.ensure_future(found.one_ends(AGAIN))
        heeded = asyncio.ensure_future(self._heeded.wait())
        try:
            await asyncio.wait((ends, heeded), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ends.cancel()
            heeded.cancel()

    def heed(self, config: TombConfig) -> None:
        """What is to come of the waiting may be said while it goes on."""
        if config.on_return != self._on_return:
            self._on_return = config.on_return
            self._heeded.set()

    def resume(self) -> None:
        """The tomb was mounted or is not going to be: start again what was stopped for it."""
        self._resuming = asyncio.ensure_future(self._managers.start_again())

    def _tell(self, who: str) -> None:
        if who == self._waits_for:
            return
        self._waits_for = who
        if who:
            self._log.notice(self._waiting())
        self._changed()

    def _waiting(self) -> str:
        return (
            f"Tomb {self.config.name} is unlocked but waiting: {self.target} is in use by "
            f"{self._waits_for}. It opens when they finish. To mount over them: set "
            'on_return = "over", then systemctl reload immud.'
        )

    def problems(self, *, is_open: bool) -> tuple[Problem, ...]:
        """What a person should know of the fallback."""
        data = {"tomb": self.config.name, "path": self.target}
        found = []
        if self._error:
            text = f"Without tomb {self.config.name}, {self.target} has no homes: {self._error}"
            found.append(Problem(Severity.WARNING, "fallback-failed", text, data))
        if self._waits_for:
            found.append(Problem(Severity.WARNING, "tomb-waits", self._waiting(), data))
        if self.mode is Absent.VOLATILE and not is_open:
            text = (
                f"{self.target} is in memory while tomb {self.config.name} is not open: what is "
                "saved in it is lost at power-off."
            )
            found.append(Problem(Severity.NOTICE, "home-volatile", text, data))
        return tuple(found)
