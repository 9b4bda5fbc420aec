"""All objects of immud: what the service says, published and kept up to date."""

import asyncio
from collections.abc import Callable

from immud.bus import finding, job, lease, logcontrol, manager, mount, names, polkit, tomb
from immud.bus.adapter import BusError, Call
from immud.bus.server import Server
from immud.bus.standard import DBUS, FAILED
from immud.errors import NoSuchJob, NotAuthorized
from immud.lease.record import Record
from immud.model import Finding, JobResult, JobView, MountFact
from immud.service import Job, Service, Tomb

RESULTS_KEPT = 64
"""Jobs that ended and can still be waited for: who started one asks after it was quick."""


class Tree:
    """Follows the service; needs no connection to do so."""

    def __init__(self, service: Service, authority: polkit.Polkit) -> None:
        self._service = service
        self._authority = authority
        self.server = Server(names.ROOT, authority.authorize, authority.uid)
        self._mounts: dict[str, MountFact] = {}
        self._tombs: dict[str, Tomb] = {}
        self._jobs: dict[int, Job] = {}
        self._findings: dict[int, Finding] = {}
        self._leases: set[str] = set()
        self._results: dict[int, JobView] = {}
        self._scheduled = False
        self.server.export(names.ROOT, manager.interface(service, self))
        self.server.export(logcontrol.PATH, logcontrol.interface())
        self._follow_jobs()
        self._follow()
        service.subscribe(self._changed)

    def started(self, started: Job) -> str:
        self._follow_jobs()
        return names.job_path(started.view.id)

    async def wait_for_job(self, path: str, timeout_us: int) -> str:
        number = names.job_number(path)
        if running := self._jobs.get(number):
            try:
                async with asyncio.timeout(timeout_us / 1e6 if timeout_us else None):
                    view = await running.wait()
            except TimeoutError:
                raise BusError(f"{DBUS}.Error.Timeout", "The job is still running.") from None
        elif number in self._results:
            view = self._results[number]
        else:
            raise NoSuchJob(f"There is no job {path}, and none has ended lately.")
        if view.result != JobResult.DONE:
            raise BusError(view.error_name or FAILED, view.error)
        return view.result

    def _changed(self) -> None:
        # Jobs at once, or a short one would come and go unseen; the rest once for all the
        # changes of one turn of the loop.
        self._follow_jobs()
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._follow)

    def _follow_jobs(self) -> None:
        now = dict(self._service.jobs())
        for number in now.keys() - self._jobs.keys():
            self._jobs[number] = now[number]
            path = names.job_path(number)
            self.server.export(path, job.interface(now[number], self._may_cancel))
            self.server.emit(names.ROOT, manager.NAME, "JobNew", "uo", number, path)
        for number in self._jobs.keys() - now.keys():
            self._job_ended(self._jobs.pop(number).view)

    def _job_ended(self, view: JobView) -> None:
        self._results[view.id] = view
        if len(self._results) > RESULTS_KEPT:
            del self._results[next(iter(self._results))]
        path = names.job_path(view.id)
        self.server.unexport(path)
        self.server.emit(names.ROOT, manager.NAME, "JobRemoved", "uos", view.id, path, view.result)

    def _follow(self) -> None:
        self._scheduled = False
        now = {fact.where: fact for fact in self._service.mounts()}
        gone, new = self._mounts.keys() - now.keys(), now.keys() - self._mounts.keys()
        self._mounts = now
        for where in gone:
            self.server.unexport(names.mount_path(where))
        for where in sorted(new):
            self.server.export(names.mount_path(where), mount.interface(self._fact(where)))
        tombs = dict(self._service.tombs())
        for name in [name for name, known in self._tombs.items() if tombs.get(name) is not known]:
            del self._tombs[name]
            self.server.unexport(names.tomb_path(name))
        for name in sorted(tombs.keys() - self._tombs.keys()):
            self._tombs[name] = tombs[name]
            self.server.export(names.tomb_path(name), tomb.interface(tombs[name], self.started))
        self._follow_findings()
        self._follow_leases()
        self.server.refresh()

    def _follow_findings(self) -> None:
        before, self._findings = self._findings, dict(self._service.findings())
        for number in before.keys() - self._findings.keys():
            self.server.unexport(names.finding_path(number))
            self._tell_finding("FindingCleared", before[number])
        for number in sorted(self._findings.keys() - before.keys()):
            path = names.finding_path(number)
            self.server.export(path, finding.interface(self._finding(number)))
            self._tell_finding("FindingRaised", self._findings[number])

    def _follow_leases(self) -> None:
        before, now = self._leases, dict(self._service.leases())
        self._leases = set(now)
        for id in before - now.keys():
            self.server.unexport(names.lease_path(id))
        for id in sorted(now.keys() - before):
            table = lease.interface(now[id], self._concerned, self._end_lease)
            self.server.export(names.lease_path(id), table)

    async def _concerned(self, call: Call, given: Record) -> None:
        # A coroutine: for these it is asked who calls.
        if call.uid not in (0, given.who):
            raise NotAuthorized("Only root and who has the lease may know this.")

    async def _end_lease(self, call: Call, given: Record) -> None:
        if call.uid != given.who:
            await self._authority.authorize(call, polkit.MANAGE_SYSTEM)
        await self._service.end_lease(given.id)

    def _tell_finding(self, member: str, told: Finding) -> None:
        path = names.finding_path(told.id)
        body = (told.id, path, str(told.kind), told.path, told.text)
        self.server.emit(names.ROOT, manager.NAME, member, "uosss", *body)

    def _finding(self, number: int) -> Callable[[], Finding]:
        return lambda: self._findings[number]

    def _fact(self, where: str) -> Callable[[], MountFact]:
        # As it is now: calls that come one upon the other are answered in one turn of the loop.
        return lambda: next(
            (fact for fact in self._service.mounts() if fact.where == where), self._mounts[where]
        )

    async def _may_cancel(self, call: Call, cancelled: Job) -> None:
        if call.uid != cancelled.view.started_by_uid:
            about_tomb = cancelled.view.object.startswith(f"{names.ROOT}/tomb/")
            action = polkit.MANAGE_TOMBS if about_tomb else polkit.MANAGE_SYSTEM
            await self._authority.authorize(call, action)
