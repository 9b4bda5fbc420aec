"""The owner's task with a volume that records: order, preemption, what jobs end with."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from immud.errors import Busy, Cancelled, ImmudError, WrongState
from immud.jobs import Jobs
from immud.model import Holder, JobResult, Problem, TombConfig, TombState
from immud.tomb.absence.absent import Absent
from immud.tomb.drives import drive
from immud.tomb.luks.dm import Mapping
from immud.tomb.machine import Action
from immud.tomb.owner import Owner
from immud.tomb.volume import State
from immud.tomb.works import Order
from immud.watch.devices import Device

STICK = Device("/devices/a", "/dev/sda", "8:0", "1", fs_type="crypto_LUKS", label="mine")
MAPPING = Mapping("immud-home", "254:0", "CRYPT-LUKS2-x-immud-home")


class NoFallback:
    """A place that has none, and says so."""

    mode = Absent.DIRECTORY
    ready = True

    def ensure(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def problems(self, *, is_open: bool) -> tuple[Problem, ...]:
        return ()


class Bench:
    """A volume whose works are told to succeed, fail or hang; it keeps what was called."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.hang: set[str] = set()
        self.slow: set[str] = set()
        self.fail: dict[str, Exception] = {}
        self.passphrases: list[bytes | None] = []
        self.read_only: list[bool] = []
        self.forced: list[float] = []
        self.target, self.hidden, self.notes = "/var/home", False, ()
        self.damage = ""
        self.fallback = NoFallback()
        self.nest = self
        self.rooted = True
        self.mounted = self.mapped = False

    def state(self) -> State:
        return State((MAPPING,) if self.mapped else (), MAPPING if self.mounted else None)

    def settle(self) -> None:
        self.rooted = True

    def uprooted(self) -> bool:
        return not self.rooted

    def unwiped(self) -> tuple[Mapping, ...]:
        return self.state().mappings

    def stands(self, mapping: Mapping, lost: Device | None) -> bool:
        return drive.alive(STICK.number)

    def base(self, mapping: Mapping) -> str:
        return STICK.number

    def device(self, mapping: Mapping) -> Device:
        return STICK

    async def _work(self, name: str) -> None:
        self.called.append(name)
        if name in self.hang | self.slow:
            try:
                await asyncio.sleep(0.1 if name in self.slow else 3600)
            except asyncio.CancelledError:
                self.called.append(f"{name} stopped")
                raise
        if name in self.fail:
            raise self.fail[name]

    @property
    def volume(self) -> "Bench":
        return self

    async def perform(
        self, action: Action, order: Order, progress: Callable[[float], None]
    ) -> tuple[Holder, ...]:
        forced = action is Action.UNMOUNT and order.force
        if action is Action.UNLOCK:
            self.passphrases.append(order.passphrase)
            self.read_only.append(order.read_only)
        self.forced.append(order.force)
        if action is Action.CHECK:
            progress(0.25)
        await self._work(f"{action} by force" if forced else str(action))
        self.mapped, self.mounted = {
            Action.UNLOCK: (True, self.mounted),
            Action.MOUNT: (self.mapped, True),
            Action.UNMOUNT: (self.mapped, False),
            Action.UNMAP: (False, self.mounted),
            Action.RETREAT: (False, False),
            Action.PURGE: (False, False),
        }.get(action, (self.mapped, self.mounted))
        return ()


class Stand:
    """An owner on a bench, and the drive it may or may not have."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench, self.told = Bench(), list[str]()
        self.there: dict[str, Device] = {}
        monkeypatch.setattr(drive, "alive", lambda *_: STICK.key in self.there)
        self.jobs = Jobs(lambda: None)
        self.owner = Owner(
            TombConfig("home", label="mine"),
            self.bench,  # type: ignore[arg-type] # it has what the owner asks of Works
            jobs=self.jobs,
            changed=lambda: None,
            on_open=lambda name: self.told.append("open"),
            on_closed=lambda name: self.told.append("closed"),
        )

    def plug(self) -> None:
        self.there[STICK.key] = STICK
        self.owner.look(self.there)

    def pull(self) -> None:
        self.there.clear()
        self.owner.look(self.there)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0)

    async def reach(self, state: TombState) -> None:
        await self.until(lambda: self.owner.view.state is state)


@pytest.fixture
async def stand(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    stand = Stand(monkeypatch)
    stand.owner.start({})
    yield stand
    await stand.owner.stop()


async def test_plugged_in_it_opens_with_a_job(stand: Stand) -> None:
    stand.plug()
    await stand.until(lambda: bool(stand.jobs.running))
    (job,) = stand.jobs.running.values()
    assert (job.view.operation, job.view.started_by_uid) == ("open", 0)
    assert (await job.wait()).result is JobResult.DONE
    assert stand.bench.called == ["unlock", "check", "mount"]
    assert stand.told == ["open"]
    assert stand.owner.view.mapper == "/dev/mapper/immud-home"


@pytest.mark.parametrize("at", ["unlock", "check", "mount"])
async def test_pulling_preempts_what_runs(stand: Stand, at: str) -> None:
    stand.bench.hang = {at}
    stand.plug()
    await stand.until(lambda: at in stand.bench.called)
    stand.pull()
    await stand.reach(TombState.ABSENT)
    assert stand.bench.called[-2:] == [f"{at} stopped", "purge"]
    assert stand.told == []


async def test_a_drive_on_the_network_ends_when_it_is_told_of_no_more(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "alive", lambda *_: True)
    nbd = replace(STICK, devpath="/devices/virtual/block/nbd0", disk="/devices/virtual/block/nbd0")
    stand.owner.look({nbd.key: nbd})
    await stand.reach(TombState.OPEN)
    stand.owner.look({})
    await stand.reach(TombState.ABSENT)
    assert stand.bench.called[-1] == "purge"
    # And it is opened by itself when it is back, although nothing else about it is new.
    stand.owner.look({nbd.key: nbd})
    await stand.reach(TombState.OPEN)


async def test_who_is_in_the_way_is_the_job_s_error(stand: Stand) -> None:
    stand.plug()
    await stand.reach(TombState.OPEN)
    stand.bench.fail = {"unmount": Busy("bash is in the way")}
    view = await stand.owner.close(1000, {}).wait()
    assert (view.error, view.error_name) == ("bash is in the way", Busy().bus_name)
    assert stand.owner.view.state is TombState.OPEN
    assert stand.told == ["open", "closed", "open"]
    assert (await stand.owner.close(0, {"force": True}).wait()).result is JobResult.DONE
    assert stand.bench.called[-2:] == ["unmount by force", "unmap"]


async def test_pulled_after_a_closing_that_somebody_was_in_the_way_of(stand: Stand) -> None:
    stand.plug()
    await stand.reach(TombState.OPEN)
    stand.bench.fail = {"unmap": Busy("a container has a file open")}
    await stand.owner.close(0, {}).wait()
    assert (stand.owner.view.state, stand.bench.mapped) == (TombState.FAILED, True)
    # Not even a purge that fails is the last: the key may still be there.
    stand.bench.fail = {"purge": ImmudError("the kernel did not finish")}
    stand.pull()
    await stand.until(lambda: stand.bench.called[-1] == "purge")
    await stand.reach(TombState.ABSENT)
    stand.bench.fail = {}
    stand.owner.look({})
    await stand.until(lambda: not stand.bench.mapped)
    await stand.reach(TombState.ABSENT)
    assert stand.bench.called.count("purge") == 2
    assert stand.owner.problems() == ()


async def test_ejected_it_is_switched_off_to_the_end_and_was_not_pulled(stand: Stand) -> None:
    stand.plug()
    await stand.reach(TombState.OPEN)
    stand.bench.slow = {"eject"}
    ejecting = stand.owner.eject(0, {})
    await stand.until(lambda: stand.bench.called[-1] == "eject")
    states = {stand.owner.view.state}
    stand.pull()
    await stand.until(lambda: bool(states.add(stand.owner.view.state)) or not stand.jobs.running)
    assert (await ejecting.wait()).result is JobResult.DONE
    assert stand.bench.called[-2:] == ["unmap", "eject"]
    assert states == {TombState.CLOSING, TombState.ABSENT}
    assert stand.told == ["open", "closed"]


async def test_what_is_left_of_a_drive_that_was_switched_off_goes_too(stand: Stand) -> None:
    stand.plug()
    await stand.reach(TombState.OPEN)
    stand.bench.slow = {"eject"}
    stand.owner.eject(0, {})
    await stand.until(lambda: stand.bench.called[-1] == "eject")
    stand.bench.mapped = True
    stand.pull()
    await stand.until(lambda: not stand.bench.mapped)
    assert stand.bench.called[-2:] == ["eject", "purge"]


async def test_force_is_for_the_closing_it_was_asked_for(stand: Stand) -> None:
    stand.plug()
    await stand.reach(TombState.OPEN)
    stand.bench.fail = {"unmount by force": Busy("stuck")}
    await stand.owner.close(0, {"force": True}).wait()
    assert stand.owner.view.state is TombState.OPEN
    stand.bench.mounted = False
    stand.owner.look(stand.there)
    await stand.reach(TombState.PRESENT)
    assert stand.bench.called[-2:] == ["unmount by force", "unmap"]
    assert stand.bench.forced[-2] > 0
    assert stand.bench.forced[-1] == 0


async def test_a_passphrase_answers_the_pending_question(stand: Stand) -> None:
    stand.bench.hang = {"unlock"}
    stand.plug()
    await stand.until(lambda: "unlock" in stand.bench.called)
    with pytest.raises(WrongState):
        stand.owner.open(0, {}, None)
    stand.bench.hang = set()
    assert (await stand.owner.open(0, {}, b"secret").wait()).result is JobResult.DONE
    assert stand.bench.passphrases == [None, b"secret"]
    assert stand.bench.called[:3] == ["unlock", "unlock stopped", "unlock"]


async def test_cancelling_the_job_takes_the_opening_back(stand: Stand) -> None:
    stand.bench.hang = {"check"}
    stand.plug()
    await stand.until(lambda: "check" in stand.bench.called)
    (job,) = stand.jobs.running.values()
    job.cancel()
    view = await job.wait()
    assert (view.result, view.error_name) == (JobResult.CANCELLED, Cancelled().bus_name)
    assert stand.bench.called[-2:] == ["check stopped", "retreat"]
    assert stand.owner.view.state is TombState.PRESENT


async def test_a_failure_is_told_and_kept(stand: Stand) -> None:
    stand.bench.fail = {"unlock": ImmudError("wrong key")}
    stand.plug()
    await stand.reach(TombState.FAILED)
    assert stand.owner.view.last_error == "wrong key"
    assert [p.code for p in stand.owner.problems()] == ["tomb-failed"]
    stand.pull()
    await stand.reach(TombState.ABSENT)
    assert stand.owner.problems() == ()


async def test_what_is_open_already_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = Stand(monkeypatch)
    stand.bench.mapped = stand.bench.mounted = True
    stand.there[STICK.key] = STICK
    stand.owner.start(stand.there)
    await stand.reach(TombState.OPEN)
    assert (stand.bench.called, stand.told) == ([], ["open"])
    await stand.owner.stop()
    assert stand.bench.mounted


async def test_unmounted_by_hand_the_mapping_goes_too(stand: Stand) -> None:
    stand.plug()
    await stand.reach(TombState.OPEN)
    stand.bench.mounted = False
    stand.owner.look(stand.there)
    await stand.reach(TombState.PRESENT)
    assert stand.bench.called[-1] == "unmap"


async def test_nothing_is_mounted_again_once_everything_is_to_stop(stand: Stand) -> None:
    stand.plug()
    await stand.reach(TombState.OPEN)
    await stand.owner.leave()
    stand.bench.mounted = stand.bench.rooted = False
    stand.plug()
    await stand.until(lambda: not stand.bench.mapped)
    assert stand.bench.called.count("mount") == 1
    assert not stand.bench.mounted


async def test_gone_with_what_it_was_on_it_is_mounted_again(stand: Stand) -> None:
    stand.plug()
    await stand.reach(TombState.OPEN)
    stand.bench.mounted = stand.bench.rooted = False
    stand.owner.look(stand.there)
    await stand.until(lambda: stand.told == ["open", "closed", "open"])
    assert stand.bench.called == ["unlock", "check", "mount", "mount"]
    assert stand.owner.view.state is TombState.OPEN


async def test_late_news_of_a_stopped_work_are_not_heard(stand: Stand) -> None:
    """A work may end in the very moment the drive is pulled: its end is queued behind that."""
    stand.bench.hang = {"purge"}
    stand.plug()
    await stand.until(lambda: "check" in stand.bench.called)
    # Before the owner runs again, both the pull and the end of the work are in its inbox.
    stand.pull()
    await stand.until(lambda: "purge" in stand.bench.called)
    for _ in range(10):
        await asyncio.sleep(0)
    assert stand.owner.view.state is TombState.LOST
    assert "mount" not in stand.bench.called
    stand.bench.hang = set()


async def test_how_far_the_check_is_shows_on_the_job(stand: Stand) -> None:
    stand.bench.hang = {"check"}
    stand.plug()
    await stand.until(lambda: "check" in stand.bench.called)
    (job,) = stand.jobs.running.values()
    assert job.view.progress == 0.25
    job.cancel()
    await job.wait()


async def test_read_only_is_for_the_opening_it_was_asked_for(stand: Stand) -> None:
    stand.plug()
    await stand.reach(TombState.OPEN)
    await stand.owner.close(0, {}).wait()
    await stand.owner.open(0, {"read-only": True}, None).wait()
    await stand.owner.close(0, {}).wait()
    await stand.owner.open(0, {}, None).wait()
    stand.pull()
    await stand.reach(TombState.ABSENT)
    stand.plug()
    await stand.reach(TombState.OPEN)
    assert stand.bench.read_only == [False, True, False, False]


async def test_whoever_answers_the_question_the_opening_stays_read_only(stand: Stand) -> None:
    stand.plug()
    await stand.reach(TombState.OPEN)
    await stand.owner.close(0, {}).wait()
    stand.bench.hang = {"unlock"}
    stand.bench.called.clear()
    stand.owner.open(0, {"read-only": True}, None)
    await stand.until(lambda: "unlock" in stand.bench.called)
    stand.bench.hang = set()
    await stand.owner.open(0, {}, b"secret").wait()
    assert stand.bench.read_only == [False, True, True]


async def test_read_only_is_told_before_anything_is_mounted(stand: Stand) -> None:
    stand.plug()
    await stand.reach(TombState.OPEN)
    await stand.owner.close(0, {}).wait()
    stand.bench.hang = {"check"}
    stand.bench.called.clear()
    opening = stand.owner.open(0, {"read-only": True}, None)
    await stand.until(lambda: "check" in stand.bench.called)
    assert stand.owner.read_only
    assert not stand.owner.view.read_only, "that is what it is, and not what it will be"
    opening.cancel()
    await opening.wait()
    assert not stand.owner.read_only


async def test_it_is_settled_when_it_is_open_or_waits_for_a_person(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand = Stand(monkeypatch)
    stand.bench.hang = {"unlock"}
    stand.there[STICK.key] = STICK
    stand.owner.config = replace(stand.owner.config, key="/key")
    assert not stand.owner.settled, "nothing is known yet"
    stand.owner.start(stand.there)
    await stand.until(lambda: "unlock" in stand.bench.called)
    assert not stand.owner.settled
    stand.owner.config = replace(stand.owner.config, key="ask")
    assert stand.owner.settled, "who is to answer may have to log in first"
    stand.owner.config = replace(stand.owner.config, key="/key")
    stand.bench.hang = set()
    stand.owner.open(0, {}, b"secret")
    await stand.reach(TombState.OPEN)
    assert stand.owner.settled
    await stand.owner.stop()


async def test_what_is_asked_as_everything_stops_ends_too(stand: Stand) -> None:
    stand.plug()
    await stand.reach(TombState.OPEN)
    unheard = stand.owner.close(0, {})
    await stand.owner.stop()
    late = stand.owner.close(0, {})
    async with asyncio.timeout(5):
        await stand.jobs.close()
    assert (await unheard.wait()).result is JobResult.CANCELLED
    assert (await late.wait()).result is not JobResult.DONE
    assert stand.owner.life.state is TombState.OPEN
