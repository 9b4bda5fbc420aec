"""Passphrases as descriptors: whole, bounded, and nobody can hold the daemon up."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from immud.bus import secret
from immud.bus.adapter import BusError, Connection, variant
from immud.bus.link import Link
from immud.bus.secret import read_secret
from tests.bus.conftest import descriptors
from tests.bus.memory import MemoryService
from tests.bus.private import PrivateBus

AF_XDP = 44  # which Python has no name for


async def write_slowly(fd: int, parts: list[bytes]) -> None:
    for part in parts:
        os.write(fd, part)
        await asyncio.sleep(0.02)
    os.close(fd)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
async def test_read_to_the_end_as_it_comes(kind: str) -> None:
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = (end.detach() for end in socket.socketpair())
    writing = asyncio.ensure_future(write_slowly(writer, [b"ses", b"\0ame", b"\n"]))
    assert await read_secret(reader) == b"ses\0ame\n"
    await writing


async def test_a_memfd_is_read_from_its_beginning() -> None:
    fd = os.memfd_create("x")
    os.write(fd, b"sesame")
    assert await read_secret(fd) == b"sesame"


async def test_the_senders_end_does_not_become_nonblocking() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    mine = os.dup(reader)
    assert await read_secret(reader) == b""
    assert os.get_blocking(mine)
    os.close(mine)


async def test_files_and_devices_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"sesame")
    os.mkfifo(tmp_path / "fifo")
    for path, flags in (("key", os.O_RDONLY), ("fifo", os.O_RDONLY | os.O_NONBLOCK)):
        fd = os.open(tmp_path / path, flags)
        if tmp_path.stat().st_dev == os.stat("/dev/shm").st_dev:
            pytest.fail("the temporary directory is a tmpfs: its files are as good as memfds")
        with pytest.raises(BusError, match="a pipe, a socket or a memfd"):
            await read_secret(fd)
    with pytest.raises(BusError, match="a pipe, a socket or a memfd"):
        await read_secret(os.open("/dev/zero", os.O_RDONLY))


async def test_a_socket_without_a_name_is_refused_and_let_go() -> None:
    before = descriptors()
    for _ in range(20):
        fd = socket.socket(AF_XDP, socket.SOCK_RAW).detach()
        with pytest.raises(BusError, match="cannot be read"):
            await read_secret(fd)
    assert descriptors() - before == set()


async def test_too_long_and_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "SECRET_MAX", 100)
    monkeypatch.setattr(secret, "TIMEOUT", 0.1)
    reader, writer = os.pipe()
    os.write(writer, b"x" * 101)
    with pytest.raises(BusError, match="more than 100 bytes"):
        await read_secret(reader)
    os.close(writer)
    fd = os.memfd_create("x")
    os.truncate(fd, 101)
    with pytest.raises(BusError, match="more than 100 bytes"):
        await read_secret(fd)
    reader, writer = os.pipe()
    with pytest.raises(BusError, match="not closed within"):
        await read_secret(reader)
    os.close(writer)


async def test_over_the_bus(bus: PrivateBus, link: Link, service: MemoryService) -> None:
    peer = await Connection.open(bus.address)
    reader, writer = os.pipe()
    os.write(writer, b"sesame")
    os.close(writer)
    options = {"passphrase-fd": variant("h", 0)}
    await peer.call(
        "org.immud1",
        "/org/immud1/tomb/home",
        "org.immud1.Tomb",
        "Open",
        "a{sv}",
        options,
        fds=[reader],
    )
    os.close(reader)
    assert service.now_tombs["home"].passphrases == [b"sesame"]
    peer.close()


async def test_descriptors_nobody_wants_are_closed(bus: PrivateBus, link: Link) -> None:
    peer = await Connection.open(bus.address)
    fd = os.memfd_create("unwanted")
    before = descriptors()
    arguments = (
        ("/org/immud1", "org.immud1.Manager", "Nothing", "h", 0),
        ("/nowhere", "org.immud1.Manager", "ListTombs", "h", 0),
        ("/org/immud1", "org.immud1.Manager", "ListTombs", "h", 0),
        ("/org/immud1", "org.immud1.Manager", "Reconcile", "a{sv}", {"x": variant("h", 0)}),
        ("/org/immud1/tomb/home", "org.immud1.Tomb", "Open", "a{sv}", {"x": variant("h", 0)}),
        (
            "/org/immud1/tomb/home", "org.immud1.Tomb", "Open", "a{sv}",
            {"passphrase-fd": variant("h", 7)},
        ),
    )  # fmt: skip
    for path, interface, member, signature, body in arguments:
        for _ in range(20):
            with pytest.raises(BusError):
                await peer.call(
                    "org.immud1", path, interface, member, signature, body, fds=[fd] * 4
                )
    assert descriptors() - before == set()
    os.close(fd)
    peer.close()
