"""Strangers, many of them, and busy ones: nothing leaks, nobody is kept waiting."""

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from immud.bus import stream
from immud.bus.adapter import (
    SIGNATURES_KEPT,
    BusError,
    Connection,
    Message,
    MessageType,
    SignatureTree,
    variant,
)
from immud.bus.link import Link
from immud.bus.server import CALLS_PER_USER
from immud.bus.standard import LIMITS_EXCEEDED
from immud.bus.stream import Stream
from immud.model import TombState
from tests.bus.conftest import descriptors
from tests.bus.memory import MemoryService
from tests.bus.private import DAEMON, NOBODY, PrivateBus

ROOT, MANAGER = "/org/immud1", "org.immud1.Manager"
GET = ("org.immud1", ROOT, "org.freedesktop.DBus.Properties", "Get", "ss", MANAGER, "Problems")


async def test_a_thousand_reads(bus: PrivateBus, link: Link) -> None:
    peer = await Connection.open(bus.address)
    before = descriptors()
    began = time.monotonic()
    for _ in range(10):
        answers = await asyncio.gather(*(peer.call(*GET) for _ in range(100)))
        assert all(answer == answers[0] for answer in answers)
    assert time.monotonic() - began < 10
    assert descriptors() - before == set()
    peer.close()


async def test_two_clients_at_once_open_one_tomb(
    bus: PrivateBus, link: Link, service: MemoryService
) -> None:
    home = service.now_tombs["home"]
    home.begun.clear()
    home.gate.clear()
    peers = [await Connection.open(bus.address) for _ in range(2)]

    async def open_tomb(peer: Connection) -> str:
        path, interface = f"{ROOT}/tomb/home", "org.immud1.Tomb"
        (job,) = await peer.call("org.immud1", path, interface, "Open", "a{sv}", {})
        return str(job)

    jobs = await asyncio.gather(*(open_tomb(peer) for peer in peers))
    assert sorted(jobs) == [f"{ROOT}/job/1", f"{ROOT}/job/2"]
    home.begun.set()
    async with asyncio.timeout(10):
        while home.view.state != TombState.UNLOCKING:
            await asyncio.sleep(0)
    with pytest.raises(BusError, match="unlocking"):
        await open_tomb(peers[0])
    home.gate.set()
    for peer, job in zip(peers, jobs, strict=True):
        assert await peer.call("org.immud1", ROOT, MANAGER, "WaitForJob", "ot", job, 0) == ["done"]
        peer.close()


async def test_a_client_that_dies_mid_call(
    bus: PrivateBus, link: Link, service: MemoryService
) -> None:
    service.now_tombs["home"].gate.clear()
    job = service.now_tombs["home"].open(0, {}, None)
    dying = await bus.peer("dying_peer.py")
    await asyncio.sleep(0.1)
    dying.kill()
    await dying.wait()
    service.now_tombs["home"].gate.set()
    assert (await job.wait()).result == "done"
    assert await bus.json("get-property", "org.immud1", ROOT, MANAGER, "NJobs") == 0


async def test_a_flood_does_not_keep_the_loop(bus: PrivateBus, link: Link) -> None:
    """While one peer sends as fast as it can, a timer still fires in time."""
    flood = await bus.peer("flood_peer.py")
    late = 0.0
    for _ in range(40):
        began = time.monotonic()
        await asyncio.sleep(0.02)
        late = max(late, time.monotonic() - began - 0.02)
    assert flood.returncode is None
    flood.kill()
    await flood.wait()
    assert late < 1.0, f"a timer was {late:.2f} s late"


async def test_one_user_cannot_fill_the_daemon_with_calls(
    bus: PrivateBus, link: Link, service: MemoryService
) -> None:
    """Over many connections, and with those that are closed again."""
    service.now_tombs["home"].gate.clear()
    job = service.now_tombs["home"].open(0, {}, None)
    wait = ("org.immud1", ROOT, MANAGER, "WaitForJob", "ot", f"{ROOT}/job/1", 0)
    before = len(asyncio.all_tasks())
    waiting: list[asyncio.Future[list[Any]]] = []
    for _ in range(4):
        peer = await open_as(NOBODY, bus)
        waiting += [asyncio.ensure_future(peer.call(*wait)) for _ in range(60)]
        await settle(peer)
        peer.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    refused = [error for error in results if isinstance(error, BusError)]
    assert {error.name for error in refused} == {LIMITS_EXCEEDED}
    assert len(refused) == 4 * 60 - CALLS_PER_USER
    assert len(asyncio.all_tasks()) - before <= CALLS_PER_USER + 1
    verify = ("call", "org.immud1", ROOT, MANAGER, "Verify", "a{sv}", "0")
    assert "Too many calls" in await bus.busctl(*verify, uid=NOBODY, status=1)
    # Reading takes no handler of the kind, and others have theirs: another user as well as root.
    await bus.busctl("call", "org.immud1", ROOT, MANAGER, "ListTombs", uid=NOBODY)
    await bus.busctl(*verify, uid=DAEMON)
    await bus.busctl(*verify)
    service.now_tombs["home"].gate.set()
    await job.wait()
    await bus.busctl(*verify, uid=NOBODY)


async def settle(peer: Connection) -> None:
    """Both the bus and immud have read what was sent, and answered what they answer at once."""
    for _ in range(5):
        await peer.call("org.immud1", ROOT, "org.freedesktop.DBus.Peer", "Ping")


async def open_as(uid: int, bus: PrivateBus) -> Connection:
    os.seteuid(uid)
    try:
        return await Connection.open(bus.address)
    finally:
        os.seteuid(0)


async def test_signatures_strangers_invent_are_forgotten(bus: PrivateBus, link: Link) -> None:
    peer = await Connection.open(bus.address)
    for number in range(700):
        kinds = "".join("ynqi"[number >> 2 * digit & 3] for digit in range(6))
        invented = variant(f"({kinds})", [0] * 6)
        with pytest.raises(BusError, match="takes"):
            await peer.call("org.immud1", ROOT, MANAGER, "ListTombs", "v", invented)
    assert len(SignatureTree._cache) <= SIGNATURES_KEPT + 10
    peer.close()


@pytest.mark.parametrize("offset", [1, 2])
async def test_messages_nobody_has_heard_of(bus: PrivateBus, link: Link, offset: int) -> None:
    """A type and a flag that the specification may have one day cost nobody anything."""
    connection = link.connection
    peer = await Connection.open(bus.address)
    send = peer._stream.send

    def altered(data: bytes, fds: Sequence[int] = ()) -> None:
        send(data[:offset] + b"\x80" + data[offset + 1 :], fds)

    peer._stream.send = altered  # type: ignore[method-assign]
    with contextlib.suppress(TimeoutError, BusError):
        await peer.call(*GET, timeout=0.2)
    peer._stream.send = send  # type: ignore[method-assign]
    with contextlib.suppress(ConnectionError):  # the bus may mind what we do not
        await peer.call(*GET)
    await bus.busctl("get-property", "org.immud1", ROOT, MANAGER, "State")
    assert link.connection is connection
    peer.close()


class Wire:
    """A stream with a socket we hold the other end of."""

    def __init__(self, unasked_max: int = stream.MESSAGE_MAX) -> None:
        ours, self.far = socket.socketpair()
        ours.setblocking(False)
        self.messages: list[tuple[bytes, int]] = []
        self.errors: list[Exception | None] = []
        self.stream = Stream(ours, self.received, self.errors.append, unasked_max)

    def received(self, data: bytes, fds: list[int]) -> None:
        self.messages.append((data, len(fds)))
        stream.close_all(fds)

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def close(self) -> None:
        self.stream.close()
        self.far.close()


CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4


def message(body: bytes, kind: int = CALL) -> bytes:
    return struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), 1, 0) + body


async def test_framing_byte_by_byte_and_all_at_once() -> None:
    wire = Wire()
    data = [message(b"x" * size) for size in (0, 1, 100)]
    for byte in b"".join(data):
        wire.far.send(bytes([byte]))
        await wire.settle()
    wire.far.send(b"".join(data))
    await wire.settle()
    assert [part for part, _ in wire.messages] == data * 2
    wire.close()


async def test_descriptors_stay_with_their_message() -> None:
    wire = Wire()
    for count in (1, 0, 2, 0):
        fds = [wire.far.fileno()] * count
        socket.send_fds(wire.far, [message(b"body")], fds)
    await wire.settle()
    assert [count for _, count in wire.messages] == [1, 0, 2, 0]
    wire.close()


@pytest.mark.parametrize(
    ("kind", "limit"),
    [(CALL, 1000), (METHOD_RETURN, 9000), (ERROR, 9000), (SIGNAL, 1000), (0x80, 1000)],
)
async def test_too_long_a_message_is_skipped(
    monkeypatch: pytest.MonkeyPatch, kind: int, limit: int
) -> None:
    """What comes unasked sooner than what we have asked for."""
    monkeypatch.setattr(stream, "MESSAGE_MAX", 9000)
    wire = Wire(unasked_max=1000)
    fits = message(b"x" * (limit - stream.HEADER), kind)
    for data in (fits, message(b"x" * (limit - stream.HEADER + 1), kind), message(b"next")):
        socket.send_fds(wire.far, [data], [wire.far.fileno()])
    await wire.settle()
    assert wire.messages == [(fits, 1), (message(b"next"), 1)]
    wire.close()


async def test_what_nobody_asked_for_is_short(bus: PrivateBus, link: Link) -> None:
    """A stranger's long call is not even read; his next one is, and a client's limit is another."""
    peer = await Connection.open(bus.address)
    body = ("org.immud1", ROOT, MANAGER, "ListTombs", "ay")
    with pytest.raises(TimeoutError):
        await peer.call(*body, bytes(stream.UNASKED_MAX), timeout=0.5)
    with pytest.raises(BusError, match="takes"):
        await peer.call(*body, bytes(stream.UNASKED_MAX - 500))
    heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    peer.on_signal.append(
        lambda signal: heard.set_result(len(signal.body[0])) if signal.path == ROOT else None
    )
    await peer.call_bus("AddMatch", "s", "type='signal',sender='org.immud1'")
    assert link.connection
    link.connection.emit(ROOT, MANAGER, "Long", "ay", bytes(stream.UNASKED_MAX))
    assert await asyncio.wait_for(heard, 5) == stream.UNASKED_MAX
    peer.close()


@pytest.mark.parametrize("kind", [CALL, METHOD_RETURN])
async def test_a_long_message_does_not_keep_the_loop(kind: int) -> None:
    """Be it skipped or taken, others have their turn after every 64 KiB."""
    wire = Wire(unasked_max=1000)
    wire.far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    long, turns = message(b"x" * 180_000, kind), 0
    assert wire.far.send(long + message(b"next")) == len(long + message(b"next"))
    while (message(b"next"), 0) not in wire.messages:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= len(long) / stream.READ_AT_ONCE
    assert len(wire.messages) == (2 if kind == METHOD_RETURN else 1)
    wire.close()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b""])
async def test_garbage_and_the_end_close_the_socket(data: bytes) -> None:
    wire = Wire()
    wire.far.send(data)
    wire.far.shutdown(socket.SHUT_WR)
    await wire.settle()
    assert wire.stream.closed
    assert len(wire.errors) == 1
    wire.close()


async def test_a_peer_that_talks_at_once(tmp_path: Path) -> None:
    """PID 1 sends signals to whoever is on its own socket, before anything was asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"BEGIN\r\n")
        signal = Message(
            path="/at", interface="a.b", member="Once", message_type=MessageType.SIGNAL
        )
        signal.serial = 1
        guid = b"0123456789abcdef0123456789abcdef"
        accepted = b"DATA\r\nOK " + guid + b"\r\nAGREE_UNIX_FD\r\n"
        writer.write(accepted + 2 * signal._marshall(False))
        await reader.read()
        writer.close()

    path = str(tmp_path / "private")
    async with await asyncio.start_unix_server(serve, path):
        peer = await Connection.open(path, direct=True)
        told: list[str] = []
        peer.on_signal.append(lambda signal: told.append(signal.member))
        async with asyncio.timeout(5):
            while len(told) < 2 and not peer.lost.done():
                await asyncio.sleep(0)
        assert told == ["Once", "Once"]
        peer.close()


async def test_a_full_socket_is_written_later() -> None:
    wire = Wire()
    sent = [message(bytes([number]) * 200_000) for number in range(10)]
    for part in sent:
        wire.stream.send(part)
    wire.far.setblocking(False)
    got = bytearray()
    while len(got) < sum(map(len, sent)):
        await asyncio.sleep(0)
        try:
            got += wire.far.recv(1 << 20)
        except BlockingIOError:
            continue
    assert bytes(got) == b"".join(sent)
    wire.close()


async def test_a_bus_that_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "UNSENT_MAX", 1_000_000)
    wire = Wire()
    for _ in range(100):
        if not wire.stream.closed:
            wire.stream.send(message(b"x" * 100_000))
    assert wire.stream.closed
    with pytest.raises(ConnectionResetError):
        wire.stream.send(message(b""))
    assert len(wire.errors) == 1
    wire.close()


async def test_an_answer_that_never_comes(bus: PrivateBus) -> None:
    await bus.start()
    peer = await Connection.open(bus.address)
    silent = await Connection.open(bus.address)
    silent.on_call = lambda call: call.close()
    with pytest.raises(TimeoutError):
        await peer.call(silent.unique_name, "/", "", "Anything", timeout=0.1)
    waiting = asyncio.ensure_future(peer.call(silent.unique_name, "/", "", "Anything"))
    await asyncio.sleep(0.05)
    await bus.stop()
    with pytest.raises(ConnectionError):
        await waiting
    assert peer.lost.done()
    with pytest.raises(ConnectionError):
        await peer.call(silent.unique_name, "/", "", "Anything")
    peer.close()
    silent.close()
