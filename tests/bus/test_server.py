"""The object server: dispatch, standard errors, properties, signals on real change only."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from immud.bus import server, standard
from immud.bus.adapter import BusError, Call, Connection, Signal, plain, variant
from immud.bus.server import CALLS_PER_PEER, Server
from immud.bus.vtable import Emits, Interface, Method, Property, no_arguments
from immud.errors import NotAuthorized, WrongState
from tests.bus.conftest import descriptors
from tests.bus.private import PrivateBus

ROOT = "/org/example"
NAME = "org.example.Thing"
METHOD_RETURN = 2
FIVE, TEN, TEXT = variant("u", 5), variant("u", 10), variant("s", "x")


class Thing:
    """What the test's objects are about."""

    def __init__(self) -> None:
        self.level = 1
        self.noted = 0
        self.gate = asyncio.Event()

    def broken(self) -> str:
        raise KeyError("secret-detail")

    async def wait(self) -> str:
        await self.gate.wait()
        return "waited"

    async def hold(self, call: Call, options: dict[str, Any]) -> str:
        return await self.wait()

    def note(self) -> None:
        self.noted += 1

    def wrong(self) -> None:
        raise WrongState("It is open.")

    def interface(self) -> Interface:
        return Interface(
            NAME,
            Method("Wait", no_arguments(self.wait), gives=("s text",)),
            Method("Hold", self.hold, takes=("a{sv} options",), gives=("s text",), fds=1),
            Method("Broken", no_arguments(self.broken), gives=("s text",)),
            Method("Wrong", no_arguments(self.wrong)),
            Method("Note", no_arguments(self.note)),
            Method("Misfit", no_arguments(lambda: "text"), gives=("u number",)),
            Method("Pair", lambda call, a, b: (b, a), takes=("s a", "u b"), gives=("u b", "s a")),
            Method("Guarded", no_arguments(self.note), action="org.example.guarded"),
            Property("Level", "u", lambda: self.level, set=self.set_level),
            Property("Hidden", "u", lambda: self.level, emits=Emits.INVALIDATES),
            Property("Quiet", "u", lambda: self.level, emits=Emits.NEVER),
            Property("Broken", "s", self.broken),
            Property("Misfit", "u", lambda: f"text {self.level}"),
            Property("Name", "s", lambda: "caf\udcff", emits=Emits.CONSTANT),
        )

    def set_level(self, value: int) -> None:
        if value > 9:
            raise BusError(standard.INVALID_ARGS, "Level is at most 9.")
        self.level = value


async def authorize(call: Call, action: str) -> None:
    if action:
        raise NotAuthorized(f"No {action} for you.")


class World:
    """A server and a stranger, each with a connection of its own."""

    def __init__(self, bus: PrivateBus) -> None:
        self.bus = bus
        self.thing = Thing()
        self.server = Server(ROOT, authorize, self.identify)
        self.server.export(ROOT, self.thing.interface())
        self.signals: list[Signal] = []
        self.known = asyncio.Event()
        self.known.set()

    async def identify(self, call: Call) -> int:
        await self.known.wait()
        return 0

    async def open(self) -> None:
        self.connection = await Connection.open(self.bus.address)
        self.server.attach(self.connection)
        self.peer = await Connection.open(self.bus.address)
        self.peer.on_signal.append(
            lambda signal: (
                self.signals.append(signal)
                if signal.sender == self.connection.unique_name
                else None
            )
        )
        rule = f"type='signal',sender='{self.connection.unique_name}'"
        await self.peer.call_bus("AddMatch", "s", rule)

    async def call(
        self, path: str, interface: str, member: str, signature: str = "", *body: Any, **more: Any
    ) -> list[Any]:
        return await self.peer.call(
            self.connection.unique_name, path, interface, member, signature, *body, **more
        )

    async def error(self, *arguments: Any, **more: Any) -> BusError:
        with pytest.raises(BusError) as caught:
            await self.call(*arguments, **more)
        return caught.value

    async def seen(self) -> list[tuple[str, str, list[Any]]]:
        """The signals since the last look; a call in between makes sure that they are here."""
        await self.call(ROOT, standard.PEER, "Ping")
        seen = [(s.path, s.member, [plain(value) for value in s.body]) for s in self.signals]
        self.signals.clear()
        return seen


@pytest_asyncio.fixture
async def world(bus: PrivateBus) -> AsyncIterator[World]:
    await bus.start()
    world = World(bus)
    await world.open()
    yield world
    world.server.detach()
    await asyncio.sleep(0)
    world.peer.close()
    world.connection.close()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("/org/nowhere", NAME, "Note"), "UnknownObject"),
        (("/org", NAME, "Note"), "UnknownInterface"),
        ((ROOT, "org.example.Other", "Note"), "UnknownInterface"),
        ((ROOT, NAME, "Nothing"), "UnknownMethod"),
        ((ROOT, "", "Nothing"), "UnknownMethod"),
        ((ROOT, NAME, "Note", "s", "too much"), "InvalidArgs"),
        ((ROOT, NAME, "Pair", "us", 1, "a"), "InvalidArgs"),
        ((ROOT, standard.PROPERTIES, "Get", "ss", NAME, "Nothing"), "UnknownProperty"),
        (
            (ROOT, standard.PROPERTIES, "Get", "ss", "org.example.Other", "Level"),
            "UnknownInterface",
        ),
        ((ROOT, standard.PROPERTIES, "GetAll", "s", "org.example.Other"), "UnknownInterface"),
        ((ROOT, standard.PROPERTIES, "Set", "ssv", NAME, "Quiet", FIVE), "PropertyReadOnly"),
        ((ROOT, standard.PROPERTIES, "Set", "ssv", NAME, "Level", TEN), "InvalidArgs"),
        ((ROOT, standard.PROPERTIES, "Set", "ssv", NAME, "Level", TEXT), "InvalidArgs"),
    ],
)
async def test_standard_errors(world: World, arguments: tuple[Any, ...], name: str) -> None:
    error = await world.error(*arguments)
    assert error.name == f"org.freedesktop.DBus.Error.{name}"
    assert str(error).endswith(".")


async def test_a_call_without_an_interface_finds_the_member(world: World) -> None:
    assert await world.call(ROOT, "", "Pair", "su", "a", 7) == [7, "a"]


async def test_peer_answers_anywhere(world: World) -> None:
    assert await world.call("/org/nowhere", standard.PEER, "Ping") == []
    (machine_id,) = await world.call("/", standard.PEER, "GetMachineId")
    assert len(bytes.fromhex(machine_id)) == 16


async def test_defects_are_not_shown_to_strangers(world: World) -> None:
    error = await world.error(ROOT, NAME, "Broken")
    assert error.name == standard.FAILED
    assert "secret-detail" not in str(error)
    assert "Traceback" not in str(error)
    assert (await world.error(ROOT, NAME, "Misfit")).name == standard.FAILED
    error = await world.error(ROOT, NAME, "Wrong")
    assert (error.name, str(error)) == ("org.immud1.Error.WrongState", "It is open.")


async def test_get_all_survives_a_getter_that_raises(world: World) -> None:
    (values,) = await world.call(ROOT, standard.PROPERTIES, "GetAll", "s", NAME)
    assert values == {"Level": 1, "Hidden": 1, "Quiet": 1, "Name": "caf\\xff"}
    error = await world.error(ROOT, standard.PROPERTIES, "Get", "ss", NAME, "Broken")
    assert error.name == standard.FAILED
    assert "secret-detail" not in str(error)


async def test_changes_are_announced_once_and_only_if_real(world: World) -> None:
    world.server.refresh()
    assert await world.seen() == []
    world.thing.level = 2
    world.server.refresh()
    world.server.refresh()
    assert await world.seen() == [
        (ROOT, "PropertiesChanged", [NAME, {"Level": 2}, ["Hidden"]]),
    ]
    await world.call(ROOT, standard.PROPERTIES, "Set", "ssv", NAME, "Level", variant("u", 3))
    assert await world.seen() == [
        (ROOT, "PropertiesChanged", [NAME, {"Level": 3}, ["Hidden"]]),
    ]


async def test_objects_come_and_go_with_signals_from_the_root(world: World) -> None:
    other = Interface("org.example.Job", Property("Id", "u", lambda: 10))
    world.server.export(f"{ROOT}/job/10", other)
    world.server.export("/org/elsewhere", other)
    world.server.unexport(f"{ROOT}/job/10")
    assert await world.seen() == [
        (ROOT, "InterfacesAdded", [f"{ROOT}/job/10", {"org.example.Job": {"Id": 10}}]),
        (ROOT, "InterfacesRemoved", [f"{ROOT}/job/10", ["org.example.Job"]]),
    ]
    error = await world.error(f"{ROOT}/job/10", standard.PROPERTIES, "GetAll", "s", "")
    assert error.name == standard.UNKNOWN_OBJECT


async def test_ten_is_no_child_of_one(world: World) -> None:
    for number in (1, 10, 100):
        world.server.export(f"{ROOT}/job/{number}", Interface("org.example.Job"))
    (xml,) = await world.call(f"{ROOT}/job", standard.INTROSPECTABLE, "Introspect")
    assert [line.strip() for line in xml.splitlines() if "<node name" in line] == [
        '<node name="1"/>',
        '<node name="10"/>',
        '<node name="100"/>',
    ]
    (xml,) = await world.call(f"{ROOT}/job/1", standard.INTROSPECTABLE, "Introspect")
    assert "<node name" not in xml
    (xml,) = await world.call("/", standard.INTROSPECTABLE, "Introspect")
    assert '<node name="org"/>' in xml
    (objects,) = await world.call(ROOT, standard.OBJECT_MANAGER, "GetManagedObjects")
    assert sorted(objects) == [f"{ROOT}/job/1", f"{ROOT}/job/10", f"{ROOT}/job/100"]


async def test_a_cancelled_handler_replies(world: World) -> None:
    waiting = asyncio.ensure_future(world.error(ROOT, NAME, "Wait"))
    await asyncio.sleep(0)
    await world.seen()
    world.server.detach()
    assert (await waiting).name == standard.NO_REPLY


async def test_who_wants_no_reply_gets_none(world: World) -> None:
    # Looked at where they are sent: the bus itself drops replies nobody asked for.
    sent: list[int] = []
    send = world.connection._stream.send

    def spy(data: bytes, fds: Sequence[int] = ()) -> None:
        sent.append(data[1])
        send(data, fds)

    world.connection._stream.send = spy  # type: ignore[method-assign]
    for member in ("Note", "Wrong", "Nothing", "Guarded"):
        with pytest.raises(TimeoutError):
            await world.call(ROOT, NAME, member, flags=1, timeout=0.05)
    assert world.thing.noted == 1
    assert sent == []
    await world.call(ROOT, NAME, "Note")
    assert sent == [METHOD_RETURN]


async def test_what_needs_authorisation_does_not_run_without(world: World) -> None:
    error = await world.error(ROOT, NAME, "Guarded")
    assert error.name == "org.immud1.Error.NotAuthorized"
    assert world.thing.noted == 0


async def test_one_peer_cannot_fill_the_daemon_with_calls(world: World) -> None:
    calls = [
        asyncio.ensure_future(world.call(ROOT, NAME, "Wait")) for _ in range(CALLS_PER_PEER + 5)
    ]
    await asyncio.sleep(0)
    await world.seen()
    done = [call for call in calls if call.done()]
    assert len(done) == 5
    for call in done:
        assert isinstance(call.exception(), BusError)
    # Everybody else is served meanwhile, and so is the peer once it has waited.
    other = await Connection.open(world.bus.address)
    await other.call(world.connection.unique_name, ROOT, NAME, "Note")
    other.close()
    world.thing.gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results.count(["waited"]) == CALLS_PER_PEER
    assert await world.call(ROOT, NAME, "Wait") == ["waited"]


async def test_calls_of_nobody_knows_whom_are_limited(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CALLS_UNKNOWN", 5)
    world.known.clear()
    calls = [asyncio.ensure_future(world.call(ROOT, NAME, "Wait")) for _ in range(8)]
    await asyncio.sleep(0)
    await world.seen()
    assert [call.done() for call in calls] == [False] * 5 + [True] * 3
    world.known.set()
    await world.seen()
    # Whose they are is known now, so there is room again.
    calls.append(asyncio.ensure_future(world.call(ROOT, NAME, "Wait")))
    await asyncio.sleep(0)
    await world.seen()
    world.thing.gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results.count(["waited"]) == 6


@pytest.mark.parametrize(("member", "body", "kept"), [("Wait", (), 0), ("Hold", ("a{sv}", {}), 1)])
async def test_only_descriptors_that_a_method_takes_are_kept(
    world: World, member: str, body: tuple[Any, ...], kept: int
) -> None:
    fd = os.memfd_create("unwanted")
    before = descriptors()
    waiting = asyncio.ensure_future(world.call(ROOT, NAME, member, *body, fds=[fd] * 16))
    await asyncio.sleep(0)
    await world.seen()
    assert len(descriptors() - before) == kept
    world.thing.gate.set()
    assert await waiting == ["waited"]
    assert descriptors() - before == set()
    os.close(fd)


async def test_a_handler_that_raises_costs_one_message(world: World) -> None:
    def stumble(call: Call) -> None:
        call.close()
        raise KeyError("stumbled")

    answering = world.connection.on_call
    world.connection.on_call = stumble
    with pytest.raises(TimeoutError):
        await world.call(ROOT, NAME, "Note", timeout=0.1)
    world.connection.on_call = answering
    await world.call(ROOT, NAME, "Note")


async def test_a_caller_that_dies_meanwhile_does_no_harm(world: World) -> None:
    other = await Connection.open(world.bus.address)
    dying = asyncio.ensure_future(other.call(world.connection.unique_name, ROOT, NAME, "Wait"))
    await asyncio.sleep(0)
    await other.call(world.connection.unique_name, ROOT, standard.PEER, "Ping")
    other.close()
    with pytest.raises(ConnectionError):
        await dying
    world.thing.gate.set()
    assert await world.call(ROOT, NAME, "Wait") == ["waited"]


async def test_introspection_annotates_changes(world: World) -> None:
    (xml,) = await world.call(ROOT, standard.INTROSPECTABLE, "Introspect")
    annotation = "org.freedesktop.DBus.Property.EmitsChangedSignal"
    found = {}
    name = ""
    for line in xml.splitlines():
        if "<property" in line:
            name = line.split('"')[1]
        if annotation in line and name:
            found[name] = line.split('"')[3]
    assert found == {
        "Level": "true",
        "Hidden": "invalidates",
        "Quiet": "false",
        "Broken": "true",
        "Misfit": "true",
        "Name": "const",
    }
