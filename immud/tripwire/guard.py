"""Sees to it that somebody looks: at each change of the table at once, elsewhere as units start.

Nothing comes round: each timer here follows something that happened, and ends with it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from immud import log, processes
from immud.child import in_child
from immud.early.facts import Facts
from immud.early.observe import Observed
from immud.early.plan import BootPlan
from immud.errors import ImmudError
from immud.model import (
    Breach,
    Finding,
    JobView,
    LinkFact,
    Problem,
    Severity,
    TombState,
    TombView,
    Tripwire,
)
from immud.tripwire import elsewhere, places
from immud.tripwire.book import Book
from immud.tripwire.expect import expect
from immud.tripwire.relock import Relock
from immud.tripwire.rule import Broken, Seen, Tomb, judge
from immud.watch.authors import Authors
from immud.watch.names import NameWatch, ServiceWatch
from immud.watch.table import Newcomers, Reading

# Seconds from a change of the table to a look at all of it, for what the quick look cannot see;
# and from the start of a service to a look into namespaces, then to one more. Each is one look
# for all that happens meanwhile.
THOROUGH = 5.0
NAMESPACES_FIRST, NAMESPACES_AGAIN = 1.0, 5.0
CHILD_TIMEOUT = 60.0
# In a storm of changes only the last so many are asked who made them.
ACTS = 8

Who = tuple[int, str, str]
"""pid, command and unit."""


class Guard:
    """The tripwire of a running daemon, which calls `paths`, `judge` and `stir` as it looks.

    `changed` is called when a finding came or went, `look` when one is due that nothing
    announced.
    """

    def __init__(
        self,
        plan: BootPlan,
        facts: Facts,
        *,
        tombs: Callable[[], Iterable[TombView]],
        changed: Callable[[], None],
        look: Callable[[], None],
        policy: Callable[[], Tripwire],
        reconcile: Callable[[], Awaitable[JobView]],
    ) -> None:
        self._plan, self._facts = plan, facts
        self._tombs, self._changed, self._look = tombs, changed, look
        self._policy = policy
        self._relock = Relock(
            policy,
            reconcile=reconcile,
            look=look,
            stands=lambda finding: finding.id in self._book.findings,
            look_elsewhere=self._survey_again,
        )
        self._log = log.get()
        self._book = Book()
        self._expected = expect(plan, facts, allow=policy().allow)
        self._newcomers = Newcomers(self._boring)
        self._authors = Authors()
        # Of the look under way: who attached (or not) which mount, and what was seen at each
        # path, then and the last time.
        self._acts: dict[tuple[int, bool], Who] = {}
        self._now: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._suspects: set[str] = set()
        self._everything = True
        self._links: NameWatch | None = None
        self._services: ServiceWatch | None = None
        self._thorough: asyncio.TimerHandle | None = None
        self._survey: asyncio.TimerHandle | None = None
        self._surveyed = float("-inf")
        self._looks_due = 0
        # Why the last survey saw nothing, empty where it did.
        self._blind = ""
        self._surveying: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    @property
    def findings(self) -> Mapping[int, Finding]:
        return self._book.findings

    def problems(self, layout: Iterable[Problem]) -> tuple[Problem, ...]:
        """The findings as problems, but for those the layout's own errors are about, and what
        could not be looked at.
        """
        errors = (problem for problem in layout if problem.severity is Severity.ERROR)
        told = {problem.data.get("path") for problem in errors}
        found = [
            Problem(
                Severity.ERROR,
                f"tripwire-{finding.kind}",
                f"{finding.text}; see: immud verify",
                {"path": finding.path, "finding": str(finding.id)},
            )
            for finding in self.findings.values()
            if finding.path not in told or finding.namespace
        ]
        if self._blind:
            text = f"{self._blind}; try again: immud verify"
            found.append(Problem(Severity.WARNING, "tripwire-blind", text, {}))
        return tuple(found)

    def start(self) -> None:
        """Begin to watch links and services, and look into the namespaces there are."""
        self._links = NameWatch(self._look)
        self._links.want(row.path for row in self._plan.rows)
        self._services = ServiceWatch(self._service_started)
        self._service_started()

    async def close(self) -> None:
        for timer in (self._thorough, self._survey):
            if timer:
                timer.cancel()
        for watch in (self._links, self._services):
            if watch:
                watch.close()
        self._authors.close()
        for task in (self._next, self._surveying):
            if task:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    # The system's own namespace

    def paths(self, reading: Reading) -> set[str]:
        """What has to be looked at besides the layout: tombs, and mounts that are not boring."""
        # First of all: who did it is there for a moment only.
        acts = self._authors.take()
        self._acts = {(act.mount, act.attached): _who(act.pid) for act in acts[-ACTS:] if act.pid}
        tombs = self._open_tombs()
        if tombs != self._expected.tombs:
            self._expected = replace(self._expected, tombs=tombs)
            self._newcomers.forget()
            self._everything = True
        if self._everything or self._authors.lost:
            self._everything = False
            self._suspects = self._newcomers.all(reading)
        else:
            attached = [act.mount for act in acts if act.attached]
            self._suspects |= self._newcomers.fresh(reading, attached)
        return self._suspects | {tomb.path for tomb in tombs}

    def judge(self, observed: Observed, links: Iterable[LinkFact]) -> None:
        """Hold against the boot what was just observed, `paths` included."""
        self._expected = expect(
            self._plan, self._facts, links, self._expected.tombs, self._policy().allow
        )
        self._before = self._now
        self._now = {entry.target: entry.id for entry in observed.mounts}
        self._suspects &= self._now.keys()
        seen = Seen(
            mounts=observed.mounts,
            others=frozenset(self._suspects),
            declared=frozenset(filter(places.is_declared, self._suspects)),
            links=observed.paths,
        )
        broken = judge(self._expected, seen)
        self._take(broken, lambda finding: not finding.namespace, self._author)

    def _author(self, finding: Finding) -> Finding:
        """The finding with who did it, where it was a mount or an unmount just now."""
        gone = finding.kind is Breach.UNMOUNTED
        mount = (self._before if gone else self._now).get(finding.path, 0)
        if who := self._acts.get((mount, not gone)):
            pid, command, unit = who
            return replace(finding, by="author", pid=pid, command=command, unit=unit)
        return finding

    def stir(self) -> None:
        """The mount table changed: a little later, look at all of it, for mounts that were moved
        or made long before. Where the kernel names each that is attached there is no need to.
        """
        if self._links:
            self._links.want(row.path for row in self._plan.rows)
        if not self._thorough and not self._authors.available:
            self._thorough = asyncio.get_running_loop().call_later(THOROUGH, self._look_at_all)

    def _boring(self, dev: str, root: str, target: str) -> bool:
        return self._expected.boring(dev, root, target)

    def _look_at_all(self) -> None:
        self._thorough = None
        self._everything = True
        self._look()

    def _open_tombs(self) -> tuple[Tomb, ...]:
        return tuple(
            Tomb(view.name, view.mount_point, places.device(view.mapper))
            for view in self._tombs()
            if view.state is TombState.OPEN
        )

    # Other namespaces

    def _service_started(self) -> None:
        # Soon, and once more when it has had time to do what it does as it starts.
        self._looks_due = 2
        self._plan_survey()

    def _plan_survey(self) -> None:
        if not self._survey:
            loop = asyncio.get_running_loop()
            again = self._surveyed + NAMESPACES_AGAIN - loop.time()
            self._survey = loop.call_later(max(NAMESPACES_FIRST, again), self._look_elsewhere)

    def _look_elsewhere(self) -> None:
        self._survey = None
        self._looks_due -= 1
        self._surveyed = asyncio.get_running_loop().time()
        if self._looks_due:
            self._plan_survey()
        # A switched superblock wakes nobody either.
        self._look()
        self._survey_again()

    def _survey_again(self) -> None:
        # What was found inside before can be looked for by the thorough look alone.
        inside = any(finding.namespace for finding in self.findings.values())
        self._begin_survey(thorough=inside)

    def _begin_survey(self, *, thorough: bool) -> "asyncio.Task[None]":
        """A survey that begins now; or, where one is under way, which may have passed already
        where something has changed since, one after it for all who ask meanwhile.
        """
        create = asyncio.get_running_loop().create_task
        if self._surveying is None or self._surveying.done():
            self._surveying = create(self._survey_all(thorough=thorough), name="namespaces")
            return self._surveying
        if self._next is None:
            self._next = create(self._survey_after(self._surveying), name="namespaces, next")
        return self._next

    async def _survey_after(self, running: "asyncio.Task[None]") -> None:
        await asyncio.wait((running,))
        self._surveying, self._next = self._next, None
        await self._survey_all(thorough=True)

    async def _survey_all(self, *, thorough: bool) -> None:
        try:
            sights: list[elsewhere.Sight] = await in_child(
                elsewhere.survey, self._expected, thorough, timeout=CHILD_TIMEOUT
            )
        except (ImmudError, OSError, RuntimeError) as error:
            self._take_blind(f"Other mount namespaces could not be looked at: {error}")
            return
        self._take_blind("")
        inside = {
            (kind, path, namespace): (pid, command, unit)
            for kind, path, _, _, namespace, pid, command, unit in sights
        }

        def who(finding: Finding) -> Finding:
            pid, command, unit = inside[str(finding.kind), finding.path, finding.namespace]
            return replace(finding, by="inside", pid=pid, command=command, unit=unit)

        broken = [
            Broken(Breach(kind), path, expected, actual, namespace)
            for kind, path, expected, actual, namespace, *_ in sights
        ]
        self._take(
            broken,
            lambda finding: (
                bool(finding.namespace) and (thorough or finding.kind is Breach.WRITABLE)
            ),
            who,
        )

    def _take_blind(self, why: str) -> None:
        if why != self._blind:
            self._blind = why
            self._changed()

    async def verify(self) -> None:
        """Look at everything now: the whole table, superblocks, links, all namespaces.

        Raises ImmudError where that cannot be done: what was not seen is not well.
        """
        self._everything = True
        self._look()
        await asyncio.shield(self._begin_survey(thorough=True))
        if self._blind:
            raise ImmudError(f"{self._blind}; what is known of the rest: immud status")

    # What came of it

    def _take(
        self,
        broken: Iterable[Broken],
        about: Callable[[Finding], bool],
        who: Callable[[Finding], Finding] = lambda finding: finding,
    ) -> None:
        raised, cleared = self._book.update(
            broken,
            realtime=time.time_ns() // 1000,
            monotonic=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000,
            who=who,
            about=about,
        )
        for finding in raised:
            self._log.error(
                f"{finding.text}.", message_id=log.MessageId.TAMPERED, **_fields(finding)
            )
        for finding in cleared:
            self._log.notice(
                f"{finding.path} is as it should be again.",
                message_id=log.MessageId.MENDED,
                **_fields(finding),
            )
        if raised or cleared:
            self._changed()
        for finding in raised:
            self._relock.consider(finding)


def _who(pid: int) -> Who:
    return pid, processes.command(pid), processes.unit(pid)


def _fields(finding: Finding) -> dict[str, object]:
    return {
        "finding": finding.id,
        "kind": str(finding.kind),
        "path": finding.path,
        "expected": finding.expected,
        "actual": finding.actual,
        "namespace": finding.namespace,
        "by": finding.by,
        "pid": finding.pid,
        "unit": finding.unit,
    }
