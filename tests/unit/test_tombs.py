"""Several tombs: one inside another is closed before it, or says why it is not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from immud.early import mountinfo
from immud.early.mountinfo import MountEntry
from immud.errors import Busy
from immud.jobs import Jobs
from immud.model import Holder, JobResult, Severity, TombConfig, TombState
from immud.tomb import tombs
from immud.tomb.absence import abandoned, absent
from immud.tomb.absence.announce import Announcements
from immud.tomb.drives import drive
from immud.tomb.luks.headstart import HeadStart
from immud.tomb.machine import Action
from immud.tomb.tombs import Tombs
from immud.tomb.works import Order
from immud.watch.devices import Device, DeviceEvent, What
from immud.watch.kmsg import KernelLog
from tests.unit.test_owner import Bench, NoFallback

HOME = TombConfig("home", label="home", key="/k", auto_open=False)
ALICE = TombConfig("alice", label="alice", mount="/var/home/alice", auto_open=False)
DEEP = TombConfig("deep", label="deep", mount="/var/home/alice/x", auto_open=False)
WORK = TombConfig("work", label="work", mount="/var/work", auto_open=False)
CONFIGS = (HOME, DEEP, ALICE, WORK)


def stick(name: str) -> Device:
    return Device(f"/devices/{name}", f"/dev/{name}", "8:0", "1", fs_type="crypto_LUKS", label=name)


class Named(Bench):
    """A volume at a place, which writes what happens to all of them into one list."""

    def __init__(self, config: TombConfig, stand: "Stand") -> None:
        super().__init__()
        self.config, self.target = config, config.mount
        self.stand = stand

    def inner(self) -> list[Bench]:
        below = [b for b in self.stand.benches.values() if b.target.startswith(f"{self.target}/")]
        return sorted(below, key=lambda bench: -len(bench.target))

    async def perform(
        self, action: Action, order: Order, progress: Callable[[float], None]
    ) -> tuple[Holder, ...]:
        how = f" with {order.force:g} s" if order.force and action is Action.UNMOUNT else ""
        self.stand.said.append(f"{action} {self.config.name}{how}")
        return await super().perform(action, order, progress)


class Stand(Tombs):
    """The tombs, on benches."""

    def __init__(self, configs: Iterable[TombConfig] = CONFIGS) -> None:
        self.benches: dict[str, Named] = {}
        self.said: list[str] = []
        self.told: list[str] = []
        super().__init__(
            configs,
            jobs=Jobs(lambda: None),
            changed=lambda: None,
            on_open=lambda name: self.told.append(f"open {name}"),
            on_closed=self._told_closed,
            lookup=lambda _: None,
            ended=lambda _: None,
            managers=None,  # type: ignore[arg-type] # whom no bench asks for anything
            kernel_log=KernelLog("/dev/null"),
        )

    def _told_closed(self, name: str) -> Awaitable[None]:
        async def nothing() -> None:
            pass

        self.told.append(f"closed {name}")
        return asyncio.ensure_future(nothing())

    def _works(self, config: TombConfig) -> Any:
        return self.benches.setdefault(config.name, Named(config, self))

    async def reach(self, name: str, state: TombState) -> None:
        async with asyncio.timeout(5):
            while self.by_name[name].life.state is not state:
                await asyncio.sleep(0)


@pytest.fixture
async def stand(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    monkeypatch.setattr(drive, "alive", lambda *_: True)
    stand = Stand()
    for owner in stand.by_name.values():
        owner.start({})
    stand._started = True
    for config in CONFIGS:
        stand.device(DeviceEvent(What.ADDED, stick(config.name)))
        await stand.reach(config.name, TombState.PRESENT)
        await stand.by_name[config.name].open(0, {}, None).wait()
        assert stand.by_name[config.name].life.state is TombState.OPEN
    stand.said.clear()
    stand.told.clear()
    yield stand
    for owner in stand.by_name.values():
        await owner.stop()


async def test_those_inside_are_closed_first(stand: Stand) -> None:
    view = await stand.by_name["home"].close(1000, {}).wait()
    assert view.result is JobResult.DONE
    assert stand.said == [
        f"{w} {n}" for n in ("deep", "alice", "home") for w in ("unmount", "unmap")
    ]
    assert stand.by_name["work"].life.state is TombState.OPEN


async def test_by_force_if_so(stand: Stand) -> None:
    await stand.by_name["alice"].close(0, {"force": True, "patience": 2}).wait()
    assert [text for text in stand.said if "unmount" in text] == [
        "unmount deep with 2 s",
        "unmount alice with 2 s",
    ]
    assert stand.by_name["home"].life.state is TombState.OPEN


async def test_one_that_is_held_keeps_the_others_open(stand: Stand) -> None:
    stand.benches["alice"].fail = {"unmount": Busy("bash is in the way")}
    view = await stand.by_name["home"].close(0, {}).wait()
    assert view.result is JobResult.FAILED
    assert view.error == "Tomb alice is inside it, and stays open: bash is in the way"
    assert stand.by_name["home"].life.state is TombState.OPEN
    # Whoever was told that it is being closed is told that it is not.
    assert [text for text in stand.told if "home" in text] == ["closed home", "open home"]
    assert "unmount home" not in stand.said


async def test_the_end_of_all(stand: Stand) -> None:
    await stand.stop(close=True)
    unmounted = [text.split()[1] for text in stand.said if text.startswith("unmount")]
    assert [name for name in unmounted if name != "work"] == ["deep", "alice", "home"]
    assert "work" in unmounted


async def test_at_the_end_what_systemd_has_unmounted_is_closed_all_the_same(stand: Stand) -> None:
    bench, owner = stand.benches["work"], stand.by_name["work"]
    bench.slow = {"unmap"}
    bench.mounted = False
    owner.look({config.name: stick(config.name) for config in CONFIGS})
    await stand.reach("work", TombState.CLOSING)
    await stand.stop(close=True)
    assert not bench.mapped
    assert "unmap stopped" not in bench.called


@pytest.mark.parametrize("under_way", ["unlock", "check", "mount"])
async def test_at_the_end_an_opening_is_taken_back(stand: Stand, under_way: str) -> None:
    bench, owner = stand.benches["work"], stand.by_name["work"]
    await owner.close(0, {}).wait()
    bench.hang = {under_way}
    owner.open(0, {}, None)
    async with asyncio.timeout(5):
        while bench.called[-1] != under_way:
            await asyncio.sleep(0)
    await stand.stop(close=True)
    assert bench.called[-2:] == [f"{under_way} stopped", "retreat"]
    assert not bench.mapped


async def test_at_the_end_a_closing_is_waited_for_however_long_it_takes(stand: Stand) -> None:
    bench, owner = stand.benches["work"], stand.by_name["work"]
    bench.slow = {"unmount"}
    closing = owner.close(1000, {})
    await stand.reach("work", TombState.CLOSING)
    await stand.stop(close=True)
    assert (await closing.wait()).result is JobResult.DONE
    assert "unmount stopped" not in bench.called
    assert not bench.mapped


async def test_an_outer_one_that_is_coming_is_waited_for(stand: Stand) -> None:
    inner, outer = stand.by_name["alice"], stand.by_name["home"]
    await stand._outer(ALICE)
    await outer.close(0, {}).wait()
    stand.benches["home"].hang = {"check"}
    opening = outer.open(0, {}, None)
    await stand.reach("home", TombState.CHECKING)
    waiting = asyncio.ensure_future(stand._outer(ALICE))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await stand._outer(WORK)
    opening.cancel()
    await opening.wait()
    await asyncio.wait_for(waiting, 1)
    assert inner.life.state is TombState.PRESENT


@pytest.mark.parametrize(
    ("config", "ready"),
    [
        (TombConfig("home", label="home", key="/k"), True),
        (TombConfig("home", label="home", key="LABEL=keys:/k"), True),
        (TombConfig("home", label="home", key="ask"), False),
        (TombConfig("home", label="home", key="/k", auto_open=False), False),
        (TombConfig("home", uuid="0-0", key="ask", encrypted=False), False),
    ],
)
async def test_a_drive_that_is_coming_is_prepared_for_where_a_tomb_waits_for_one(
    monkeypatch: pytest.MonkeyPatch, config: TombConfig, ready: bool
) -> None:
    prepared: list[bool] = []
    monkeypatch.setattr(HeadStart, "prepare", lambda _: prepared.append(True))
    monkeypatch.setattr(drive, "alive", lambda *_: True)
    stand = Stand((config,))
    owner = stand.by_name["home"]
    stand.coming()
    assert not prepared, "what there is is not known yet"
    owner.start({})
    stand._started = True
    async with asyncio.timeout(5):
        while not owner.known:
            await asyncio.sleep(0)
    stand.coming()
    assert prepared == [True] * ready
    stand.device(DeviceEvent(What.ADDED, stick("home")))
    if ready and "LABEL" not in config.key:
        await stand.reach("home", TombState.OPEN)
        stand.coming()
        assert prepared == [True], "it is here"
    await owner.stop()


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("again", [(), (replace(WORK, key="/other"),)])
async def test_a_tomb_that_is_not_configured_any_more_is_looked_after_while_its_key_is_there(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, again: tuple[TombConfig, ...]
) -> None:
    bench, owner = stand.benches["work"], stand.by_name["work"]
    monkeypatch.setattr(NoFallback, "heed", lambda *_: None, raising=False)
    bench.fail = {"unmap": Busy("a container has a file open")}
    await owner.close(0, {}).wait()
    assert (owner.life.state, bench.mapped) == (TombState.FAILED, True)
    stand.reload([HOME, DEEP, ALICE, *again])
    await turns(5)
    assert stand.by_name.get("work") is owner
    assert owner.config == WORK
    monkeypatch.setattr(drive, "alive", lambda *_: False)
    stand.device(DeviceEvent(What.REMOVED, stick("work")))
    async with asyncio.timeout(5):
        while bench.mapped:
            await asyncio.sleep(0)
        while owner.config == WORK and "work" in stand.by_name:
            await asyncio.sleep(0)
    assert bench.called[-1] == "purge"
    assert [o.config for o in stand.by_name.values() if o.config.name == "work"] == [*again]


async def test_and_no_longer_when_the_mapping_goes_by_itself(stand: Stand) -> None:
    bench, owner = stand.benches["work"], stand.by_name["work"]
    bench.fail = {"unmap": Busy("a container has a file open")}
    await owner.close(0, {}).wait()
    stand.reload([HOME, DEEP, ALICE])
    assert "work" in stand.by_name
    bench.mapped = False
    stand.device(DeviceEvent(What.REMOVED, replace(stick("dm"), devnode="/dev/dm-0")))
    assert "work" not in stand.by_name


@pytest.fixture
async def closed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    """Tomb work alone, which opens by itself when its drive comes."""
    monkeypatch.setattr(drive, "alive", lambda *_: True)
    stand = Stand([replace(WORK, auto_open=True)])
    for owner in stand.by_name.values():
        owner.start({})
    stand._started = True
    await known(stand)
    yield stand
    await stand.stop(close=False)


async def test_a_drive_that_comes_as_its_tomb_is_removed_is_left_alone(closed: Stand) -> None:
    closed.device(DeviceEvent(What.ADDED, stick("work")))
    closed.reload([])
    await turns(10)
    assert closed.benches["work"].called == []
    assert dict(closed.by_name) == {}


async def test_also_behind_the_closing_that_the_removal_waited_for(closed: Stand) -> None:
    owner, bench = closed.by_name["work"], closed.benches["work"]
    closed.device(DeviceEvent(What.ADDED, stick("work")))
    await closed.reach("work", TombState.OPEN)
    bench.slow = {"unmap"}
    closing = owner.close(0, {})
    async with asyncio.timeout(5):
        while bench.called[-1] != "unmap":
            await asyncio.sleep(0)
    closed.reload([])
    # Another drive is seen between the end of that and the moment its owner hears of it.
    work = owner._under_way._work
    assert work
    other = replace(stick("work"), devpath="/devices/other", disk="/devices/other")
    work.add_done_callback(lambda _: owner.look({other.key: other}))
    assert (await closing.wait()).result is JobResult.DONE
    await turns(10)
    assert bench.called[-1] == "unmap"
    assert dict(closed.by_name) == {}


@pytest.mark.parametrize("before", range(4))
async def test_whoever_asks_as_it_is_removed_gets_an_answer(closed: Stand, before: int) -> None:
    bench, owner = closed.benches["work"], closed.by_name["work"]
    owner._life = replace(owner.life, auto_open=False)
    closed.device(DeviceEvent(What.ADDED, stick("work")))
    await closed.reach("work", TombState.PRESENT)
    asked = owner.open(0, {}, None)
    await turns(before)
    closed.reload([])
    async with asyncio.timeout(5):
        view = await asked.wait()
    # Whichever was first.
    assert (view.result is JobResult.DONE) is bench.mounted is ("work" in closed.by_name)


class Table:
    """A mount table in which these places have volatile homes."""

    def __init__(self) -> None:
        self.places = {HOME.mount, WORK.mount}

    def top(self, path: str) -> MountEntry | None:
        return entry(path) if path in self.places else None


def entry(path: str) -> MountEntry:
    words = {"dev": "0:50", "root": "/", "options": "rw", "fstype": "tmpfs"}
    return MountEntry(id=9, parent=1, target=path, source=absent.SOURCE, **words)


@pytest.fixture
def table() -> Table:
    return Table()


Begin = Callable[[tuple[TombConfig, ...]], Awaitable[Stand]]


@pytest.fixture
async def begin(
    tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Begin]:
    """Starts tombs whose drives are away, in a world with volatile homes at two places."""
    monkeypatch.setattr(NoFallback, "seen", lambda *_: None, raising=False)
    for module in (tombs, abandoned):
        monkeypatch.setattr(module, "Reading", lambda: table)
    monkeypatch.setattr(mountinfo, "read", lambda: (entry(HOME.mount), entry(WORK.mount)))
    (tmp_path / "immud").mkdir()
    begun: list[Stand] = []

    async def begin(configs: tuple[TombConfig, ...]) -> Stand:
        stand = Stand(configs)
        stand._announcements = Announcements(
            lambda: None,
            motd=str(tmp_path / "motd"),
            nologin=str(tmp_path / "nologin"),
            ours=str(tmp_path / "immud/nologin"),
        )
        begun.append(stand)
        stand.start()
        await known(stand)
        return stand

    yield begin
    for stand in begun:
        await stand.stop(close=False)


async def known(stand: Stand) -> None:
    async with asyncio.timeout(5):
        while not all(owner.known for owner in stand.by_name.values()):
            await asyncio.sleep(0)


def said(stand: Stand) -> list[tuple[str, str, str]]:
    return [(p.severity, p.code, p.data["path"]) for p in stand.problems()]


def left(config: TombConfig) -> tuple[str, str, str]:
    return Severity.WARNING, "home-volatile", config.mount


async def test_homes_in_memory_are_told_of_when_their_tomb_is_removed(
    begin: Begin, table: Table, tmp_path: Path
) -> None:
    stand, motd = await begin((HOME, WORK)), tmp_path / "motd"
    assert said(stand) == []
    stand.reload([WORK])
    assert said(stand) == [left(HOME)]
    assert "/var/home is in this machine's memory" in motd.read_text()
    stand.reload([])
    assert said(stand) == [left(HOME), left(WORK)]
    # One is unmounted, and the other has a tomb again.
    table.places = {HOME.mount}
    stand.mounts(table)  # type: ignore[arg-type] # all that is asked of it
    assert said(stand) == [left(HOME)]
    assert "/var/work" not in motd.read_text()
    stand.reload([HOME])
    assert said(stand) == []
    await known(stand)
    assert not motd.exists()


async def test_and_when_it_is_moved(begin: Begin, tmp_path: Path) -> None:
    stand = await begin((HOME, WORK))
    stand.benches.clear()
    stand.reload([replace(HOME, mount="/data/home"), WORK])
    assert said(stand) == [left(HOME)]
    assert (tmp_path / "motd").exists()


async def test_and_by_a_daemon_that_never_knew_the_tomb(
    begin: Begin, table: Table, tmp_path: Path
) -> None:
    stand = await begin(())
    stand.mounts(table)  # type: ignore[arg-type] # as above
    assert said(stand) == [left(HOME), left(WORK)]
    assert "/var/home" in (tmp_path / "motd").read_text()


async def test_a_bind_of_what_is_in_the_place_of_a_tomb_is_none(begin: Begin) -> None:
    # Both places are one file system.
    assert said(await begin((WORK,))) == []
