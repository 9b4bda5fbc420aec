"""Phase 2: one event loop that watches, decides and answers.

Composition only: who watches what and who is told. What is true is looked up
(`state`), what happens to a tomb its owner decides (`tomb`), how it is said on
the bus is the bus's business (`bus`).
"""

from immud import lean

lean.block()

# ruff: noqa: E402 - what is blocked has to be so before asyncio is imported
import asyncio
import gc
import os
import signal
from collections.abc import Mapping
from typing import Any

from immud import ending, log
from immud.bus.adapter import Connection
from immud.bus.link import Link
from immud.child import in_child
from immud.config.compile import compile_plan, write_plan
from immud.config.load import tolerate
from immud.early import facts, logins, namespaces, notify
from immud.early.observe import Observed, observe, paths_of
from immud.early.plan import PATH as PLAN_PATH
from immud.early.process import command, is_legacy, now
from immud.errors import ImmudError
from immud.integration.parts import Companions
from immud.jobs import Jobs, RunningJob
from immud.lease.record import Record
from immud.lease.register import Leases
from immud.model import (
    Finding,
    LinkFact,
    ManagerState,
    MountFact,
    Problem,
    Severity,
)
from immud.run import run
from immud.service import Changed
from immud.state import Layout, attest, overall
from immud.systemd import Systemd
from immud.telling import Telling
from immud.tomb.absence.managers import UserManagers
from immud.tomb.drives.match import names
from immud.tomb.tombs import Tombs
from immud.tripwire.guard import Guard
from immud.watch.devices import DeviceEvent
from immud.watch.kmsg import KernelLog
from immud.watch.mounts import MountWatch
from immud.watch.system import SystemWatch
from immud.watch.table import Reading
from immud.watch.udev import UdevWatch

MANAGER_PATH = "/org/immud1"
# Seconds between attempts to make / read-only after a process had a file open for writing.
RETRIES = (1, 2, 4, 8, 15, 30, 60, 120, 300)


_RANK = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTICE: 2}

NO_UDEV = Problem(
    Severity.WARNING,
    "no-udev",
    "There is no udev here, so drives that are plugged in go unnoticed (expected in a container).",
)


class Daemon:
    """The service of `immud.service.Service`; everything runs on its one event loop."""

    def __init__(self) -> None:
        self.config, self._config_problems = tolerate()
        log.sink.level = log.Level[self.config.log_level.upper()]
        self.log = log.get()
        self._facts, self._plan = facts.of_this_boot()
        self._layout = Layout()
        self._subscribers: list[Changed] = []
        self._telling = Telling(self)
        self._refreshing = False
        self._stopping = False
        self._times = {**dict(self._facts.times), "DaemonStart": now()}
        self._jobs = Jobs(self._notify)
        self._reconciling = asyncio.Lock()
        self._mounts = MountWatch(self._table_changed)
        self._udev = UdevWatch(self._device, self._coming)
        kernel_log = KernelLog()
        self._system = SystemWatch(self.refresh, kernel_log)
        self._companions = Companions(lambda: self._tombs.by_name, self._connection, self._notify)
        self._tombs = Tombs(
            self.config.tombs,
            jobs=self._jobs,
            changed=self._tombs_changed,
            on_open=self._companions.opened,
            on_closed=self._companions.closed,
            lookup=self._udev.lookup,
            ended=self._udev.ended,
            managers=UserManagers(self._connection),
            kernel_log=kernel_log,
        )
        self._leases = Leases(self._notify)
        self._guard = self._make_guard()
        self._link: Link | None = None

    # What is published: see immud.service.Service

    def state(self) -> ManagerState:
        return overall(self.problems(), off=self._facts.layout == "off", stopping=self._stopping)

    def problems(self) -> tuple[Problem, ...]:
        bus = (self._link.problem,) if self._link and self._link.problem else ()
        udev = (NO_UDEV,) if self.config.tombs and not self._udev.available else ()
        found = (
            *self._config_problems, *self._layout.problems, *self._guard_problems(),
            *self._tombs.problems(), *self._companions.problems,
            *bus, *udev,
        )  # fmt: skip
        # What matters most comes first, and within that what was found first.
        return tuple(sorted(found, key=lambda problem: _RANK[problem.severity]))

    def boot(self) -> Mapping[str, Any]:
        return {
            "Layout": self._facts.layout,
            "Plan": self._facts.plan,
            "Kernel": os.uname().release,
            "UsrSource": self._plan.usr if self._plan else "",
            "EtcSource": self._plan.etc if self._plan else "",
            "VarSource": self._plan.var if self._plan else "",
        }

    def timestamps(self) -> Mapping[str, int]:
        return self._times

    def mounts(self) -> tuple[MountFact, ...]:
        return self._layout.mounts

    def links(self) -> tuple[LinkFact, ...]:
        # Nor a link nor a file system that stops tells the mount table: they are looked at when
        # asked for, and all else with them.
        self._system.look()
        before, self._layout = self._layout, self._look()
        if self._layout != before:
            self._notify()
        return self._layout.links

    def findings(self) -> Mapping[int, Finding]:
        return self._guard.findings if self._guard else {}

    def integrity(self) -> str:
        if self._guard is None:
            return "unknown"
        return "violated" if self._guard.findings else "intact"

    async def verify(self) -> None:
        if self._guard:
            await self._guard.verify()

    def usr_read_only(self) -> bool:
        return bool(os.statvfs("/usr").f_flag & os.ST_RDONLY)

    def root_read_only(self) -> bool:
        return bool(os.statvfs("/").f_flag & os.ST_RDONLY)

    def tombs(self) -> Mapping[str, Any]:
        return self._tombs.by_name

    def home_tomb(self) -> str:
        return self._tombs.home()

    def leases(self) -> Mapping[str, Record]:
        return self._leases.by_id

    async def end_lease(self, id: str) -> None:
        if lease := self._leases.by_id.get(id):
            await Systemd(self._connection).stop_unit(lease.unit)

    def jobs(self) -> Mapping[int, RunningJob]:
        return self._jobs.running

    def subscribe(self, changed: Changed) -> None:
        self._subscribers.append(changed)

    def reconcile(self, uid: int, options: Mapping[str, Any]) -> RunningJob:
        """Perform the steps that are missing, as phase 1 would."""
        return self._jobs.start("reconcile", MANAGER_PATH, uid, self._reconcile)

    def reload(self, uid: int, options: Mapping[str, Any]) -> RunningJob:
        """Read the configuration again: tombs now, the layout for the next boot."""
        return self._jobs.start("reload", MANAGER_PATH, uid, self._reload)

    # Jobs

    async def _reconcile(self, _job: RunningJob) -> None:
        if self._facts.layout == "off":
            raise ImmudError("This boot has no layout; a reboot without immud=off has one.")
        if self._facts.layout == "skipped":
            raise ImmudError("This boot has no layout: the boots before it failed; reboot.")
        # Two at once would both see what is missing, and mount it twice.
        async with self._reconciling:
            await run(*command("reconcile"), timeout=60, allowed=(0, 1))
            self._facts = facts.read() or self._facts
        self.refresh()
        errors = [p for p in self._look().problems if p.severity == Severity.ERROR]
        if errors:
            raise ImmudError(errors[0].text)

    async def _reload(self, _job: RunningJob) -> None:
        config, problems = tolerate()
        self._config_problems = problems
        self.refresh()
        if problems:
            raise ImmudError(problems[0].text)
        self.config = config
        log.sink.level = log.Level[config.log_level.upper()]
        if os.path.exists(PLAN_PATH):
            write_plan(compile_plan(config))
        self._tombs.reload(config.tombs)
        self._udev.want(names(config.tombs))
        self.refresh()

    async def _retry_root(self) -> None:
        """Try again while something keeps / writable: whoever holds it may let go."""
        for seconds in RETRIES:
            await asyncio.sleep(seconds)
            if not self._lacks_root_alone():
                return
            try:
                await self._reconcile_quietly()
            except ImmudError as error:
                self.log.debug(f"/ stays writable for now: {error}")

    def _lacks_root_alone(self) -> bool:
        # With more missing, as where phase 1 failed, nothing is done to a system that runs: /usr
        # would become read-only under the dpkg that mends immud.
        return [mount.where for mount in self.mounts() if mount.state != "mounted"] == ["/"]

    async def _follow(self) -> None:
        """Look after the mount namespaces that were half-made when phase 1 looked."""
        if any(mount.where == "/" and mount.state == "mounted" for mount in self.mounts()):
            try:
                await in_child(namespaces.follow, is_legacy(), timeout=30)
            except (ImmudError, OSError, RuntimeError) as error:
                self.log.warning(f"Other mount namespaces may have a writable /: {error}")
        # Not before: what is being put right is nobody's finding.
        if self._guard:
            self._guard.start()

    async def _reconcile_quietly(self) -> None:
        await self.reconcile(0, {}).wait()

    # The tripwire

    def _make_guard(self) -> Guard | None:
        """None in a boot without a layout, where nothing is protected."""
        if self._plan is None or self._facts.layout == "off":
            return None
        return Guard(
            self._plan,
            self._facts,
            tombs=lambda: (owner.view for owner in self._tombs.by_name.values()),
            changed=self._notify,
            look=self.refresh,
            policy=lambda: self.config.tripwire,
            reconcile=lambda: self.reconcile(0, {}).wait(),
        )

    def _guard_problems(self) -> tuple[Problem, ...]:
        return self._guard.problems(self._layout.problems) if self._guard else ()

    # Being told

    def _connection(self) -> Connection | None:
        return self._link.connection if self._link else None

    def _coming(self) -> None:
        self._tombs.coming()

    def _device(self, event: DeviceEvent) -> None:
        self._tombs.device(event)

    def _table_changed(self) -> None:
        reading = Reading()
        self._tombs.mounts(reading)
        # At once: who watches for tampering is to know within milliseconds.
        before = self._layout
        self._layout = self._look(reading)
        if self._guard:
            self._guard.stir()
        if self._layout != before:
            self._notify()

    def refresh(self) -> None:
        """Look again soon; many reasons to, in one turn of the loop, are one look."""
        if not self._refreshing:
            self._refreshing = True
            asyncio.get_running_loop().call_soon(self._refresh)

    def _refresh(self) -> None:
        self._refreshing = False
        self._layout = self._look()
        self._notify()

    def _look(self, reading: Reading | None = None) -> Layout:
        if self._plan is None or self._guard is None:
            return attest(self._facts, None, Observed())
        reading = reading or Reading()
        paths = paths_of(self._plan) | self._guard.paths(reading)
        observed = observe(self._plan, mounts=reading.visible(paths))
        observed.stopped = self._system.stopped
        layout = attest(self._facts, self._plan, observed)
        self._guard.judge(observed, layout.links)
        return layout

    def _notify(self) -> None:
        """Something readable may have changed. Cheap: this is called at every step of a tomb."""
        for changed in self._subscribers:
            changed()
        self._telling.changed()

    def _tombs_changed(self) -> None:
        self._companions.look()
        self._notify()

    # The life of the process

    async def serve(self) -> None:
        """Run until SIGTERM; open tombs stay open unless the whole system stops."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(log.loop_exception_handler)
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGINT, stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.reload(0, {}))
        self._watchdog()
        held = logins.held()
        self._layout = self._look()
        self._udev.start(names(self.config.tombs))
        self._tombs.start()
        self._mounts.start()
        self._system.start()
        self._leases.start()
        self._link = Link(self, changed=self.refresh)
        self._link.connected.append(self._companions.connected)
        tasks = [asyncio.create_task(self._link.run(), name="bus")]
        tasks.append(asyncio.create_task(self._admit(held), name="logins"))
        tasks.append(asyncio.create_task(self._follow(), name="namespaces"))
        if self._lacks_root_alone():
            tasks.append(asyncio.create_task(self._retry_root(), name="retry /"))
        self.refresh()
        await stop.wait()
        await self._stop(tasks)

    async def _admit(self, held: int | None) -> None:
        """Let people log in once there are homes; those who wait for that do not wait for ever."""
        try:
            await self._tombs.settled.wait()
        finally:
            logins.release(held)

    async def _stop(self, tasks: list[asyncio.Task[None]]) -> None:
        self._stopping = True
        notify.stopping("Stopping")
        self._notify()
        stops = await ending.system_stops()
        if stops:
            tasks.append(asyncio.create_task(ending.take_time(), name="time to stop"))
            await self._companions.system_stops()
        await self._tombs.stop(close=stops)
        await self._companions.close(finish=stops)
        await self._jobs.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._udev.close()
        self._mounts.close()
        self._system.close()
        self._leases.close()
        if self._guard:
            await self._guard.close()

    def _watchdog(self) -> None:
        if seconds := notify.watchdog_interval():
            notify.watchdog()
            asyncio.get_running_loop().call_later(seconds, self._watchdog)


def main() -> None:
    """Serve until the service manager says stop."""
    # What is there by now stays: it is not looked through again, which leaves so little that a
    # tomb has its garbage collected whenever it is closed.
    gc.freeze()
    asyncio.run(_main())


async def _main() -> None:
    await Daemon().serve()
