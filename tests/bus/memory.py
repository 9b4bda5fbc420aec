"""A service that lives in memory: what the bus objects are tested against."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from immud.bus import names
from immud.errors import Busy, WrongKey, WrongState
from immud.jobs import Jobs, RunningJob
from immud.lease.record import Record
from immud.model import (
    Finding,
    LinkFact,
    ManagerState,
    MountFact,
    Problem,
    Severity,
    TombState,
    TombView,
)
from immud.service import Changed


class MemoryTomb:
    """A tomb that opens when `gate` is set, for any passphrase but one with `wrong` in it.

    It begins to when `begun` is set: until then it is as it was.
    """

    def __init__(self, service: "MemoryService", name: str) -> None:
        self._service = service
        self.view = TombView(name, TombState.PRESENT, uuid="0-1", mount_point="/var/home")
        self.begun, self.gate = asyncio.Event(), asyncio.Event()
        self.begun.set()
        self.gate.set()
        self.passphrases: list[bytes | None] = []
        self.options: list[Mapping[str, Any]] = []

    def become(self, **fields: Any) -> None:
        self.view = replace(self.view, **fields)
        self._service.changed()

    def open(self, uid: int, options: Mapping[str, Any], passphrase: bytes | None) -> RunningJob:
        if self.view.state != TombState.PRESENT:
            raise WrongState(f"The tomb {self.view.name} is {self.view.state}.")
        self.passphrases.append(passphrase)

        async def work(job: RunningJob) -> None:
            await self.begun.wait()
            self.become(state=TombState.UNLOCKING)
            job.progress(0.5)
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.become(state=TombState.PRESENT)
                raise
            if b"wrong" in (passphrase or b""):
                self.become(state=TombState.PRESENT)
                raise WrongKey("The passphrase does not open the volume on /dev/sda.")
            self.become(state=TombState.OPEN)

        return self._start("open", uid, work)

    def close(self, uid: int, options: Mapping[str, Any]) -> RunningJob:
        self.options.append(options)

        async def work(job: RunningJob) -> None:
            if not options.get("force"):
                raise Busy("bash (pid 12) is in the way; end it, or use --force.")
            self.become(state=TombState.PRESENT)

        return self._start("close", uid, work)

    def eject(self, uid: int, options: Mapping[str, Any]) -> RunningJob:
        return self.close(uid, options)

    def _start(self, operation: str, uid: int, work: Any) -> RunningJob:
        path = names.tomb_path(self.view.name)
        return self._service.running.start(operation, path, uid, work)


class MemoryService:
    def __init__(self) -> None:
        self._subscribers: list[Changed] = []
        self.running = Jobs(self.changed)
        self.now_state = ManagerState.RUNNING
        self.now_problems: tuple[Problem, ...] = (
            Problem(Severity.NOTICE, "unadopted", "/opt is a directory.", {"path": "/opt"}),
        )
        self.now_mounts = {
            where: MountFact(where, "/dev/vda1", "ext4", "rw,relatime", where == "/usr", "mounted")
            for where in ("/", "/usr", "/etc", "/var")
        }
        self.now_tombs = {"home": MemoryTomb(self, "home")}
        self.now_findings: dict[int, Finding] = {}
        self.now_leases: dict[str, Record] = {}
        self.verified = 0

    def changed(self) -> None:
        for subscriber in self._subscribers:
            subscriber()

    def subscribe(self, changed: Changed) -> None:
        self._subscribers.append(changed)

    def state(self) -> ManagerState:
        return self.now_state

    def problems(self) -> tuple[Problem, ...]:
        return self.now_problems

    def boot(self) -> Mapping[str, Any]:
        return {"plan": "compiled", "fallback": False, "ready_us": 21000, "tries": 0}

    def timestamps(self) -> Mapping[str, int]:
        return {"ready": 1_500_000}

    def mounts(self) -> tuple[MountFact, ...]:
        return tuple(self.now_mounts.values())

    def links(self) -> tuple[LinkFact, ...]:
        return (LinkFact("/home", "var/home", "adopted", "link"),)

    def usr_read_only(self) -> bool:
        return self.now_mounts["/usr"].read_only

    def root_read_only(self) -> bool:
        return True

    def tombs(self) -> Mapping[str, MemoryTomb]:
        return self.now_tombs

    def home_tomb(self) -> str:
        home = self.now_tombs.get("home")
        return "home" if home and home.view.state == TombState.OPEN else ""

    def jobs(self) -> Mapping[int, RunningJob]:
        return self.running.running

    def leases(self) -> Mapping[str, Record]:
        return self.now_leases

    async def end_lease(self, id: str) -> None:
        del self.now_leases[id]
        self.changed()

    def findings(self) -> Mapping[int, Finding]:
        return self.now_findings

    def integrity(self) -> str:
        return "violated" if self.now_findings else "intact"

    async def verify(self) -> None:
        await asyncio.sleep(0)
        self.verified += 1

    def reconcile(self, uid: int, options: Mapping[str, Any]) -> RunningJob:
        async def work(job: RunningJob) -> None:
            await asyncio.sleep(0)

        return self.running.start("reconcile", names.ROOT, uid, work)

    def reload(self, uid: int, options: Mapping[str, Any]) -> RunningJob:
        return self.reconcile(uid, options)
