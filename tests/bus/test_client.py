"""The command's side of the bus: plain values, and errors with an exit code."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest

from immud import errors
from immud.bus.adapter import BusError, Connection, Signal
from immud.bus.link import Link
from immud.client import Client, from_bus
from immud.model import TombState
from tests.bus.memory import MemoryService
from tests.bus.private import NOBODY, REPOSITORY, PrivateBus


async def test_values_are_plain(bus: PrivateBus, link: Link) -> None:
    async with Client(bus.address) as client:
        manager = await client.get_all()
        assert manager["State"] == "running"
        assert manager["Boot"] == {
            "plan": "compiled", "fallback": False, "ready_us": 21000, "tries": 0,
        }  # fmt: skip
        assert manager["Problems"] == [
            ["notice", "unadopted", "/opt is a directory.", {"path": "/opt"}]
        ]
        objects = await client.objects()
        assert objects["/org/immud1/mount/usr"]["org.immud1.Mount"]["ReadOnly"] is True
        assert await client.tombs() == [["home", "present", "/var/home", "/org/immud1/tomb/home"]]
        assert await client.links() == [["/home", "var/home", "adopted", "link"]]
        assert len(await client.mounts()) == 4
        assert await client.get("/org/immud1/tomb/home", "org.immud1.Tomb", "AutoOpen") is True


async def test_open_with_a_passphrase_and_wait(
    bus: PrivateBus, link: Link, service: MemoryService
) -> None:
    home = service.now_tombs["home"]
    async with Client(bus.address) as client:
        await client.wait(await client.open_tomb("home", b"ses\0ame\n"))
        assert home.passphrases == [b"ses\0ame\n"]
        assert home.view.state == TombState.OPEN
        with pytest.raises(errors.WrongState, match="The tomb home is open"):
            await client.open_tomb("home")
        with pytest.raises(errors.Busy, match="pid 12"):
            await client.wait(await client.close_tomb("home"))
        await client.wait(await client.eject_tomb("home", force=True))
        assert home.options == [{"force": False}, {"force": True}]
        with pytest.raises(errors.NoSuchTomb):
            await client.open_tomb("work")
        with pytest.raises(errors.NoSuchJob):
            await client.wait("/org/immud1/job/77")
        await client.wait(await client.reconcile())
        await client.wait(await client.reload())


async def test_cancel(bus: PrivateBus, link: Link, service: MemoryService) -> None:
    service.now_tombs["home"].gate.clear()
    async with Client(bus.address) as client:
        job = await client.open_tomb("home")
        waiting = asyncio.ensure_future(client.wait(job))
        await client.cancel(job)
        with pytest.raises(errors.Cancelled):
            await waiting


async def test_signals_from_the_moment_of_subscribing(
    bus: PrivateBus, link: Link, service: MemoryService
) -> None:
    service.now_tombs["home"].gate.clear()
    async with Client(bus.address) as client:
        signals = await client.subscribe()
        service.now_tombs["home"].become(label="STICK")
        signal = await anext(signals)
        assert (signal.path, signal.member) == ("/org/immud1/tomb/home", "PropertiesChanged")
        assert signal.body == ["org.immud1.Tomb", {"Label": "STICK"}, []]
        job = service.now_tombs["home"].open(0, {}, None)
        assert (await anext(signals)).member == "InterfacesAdded"
        assert (await anext(signals)).body == [1, "/org/immud1/job/1"]
        service.now_tombs["home"].gate.set()
        await job.wait()
        members = []
        while "JobRemoved" not in members:
            signal = await anext(signals)
            members.append(signal.member)
        assert signal.body == [1, "/org/immud1/job/1", "done"]
        # A stranger's signals are not the daemon's.
        stranger = await Connection.open(bus.address)
        stranger.emit("/org/immud1", "org.immud1.Manager", "JobRemoved", "uos", 9, "/", "done")
        await stranger.call_bus("GetId")
        stranger.close()
        await bus.stop()
        rest: list[Any] = []
        with pytest.raises(errors.Unreachable):
            await drain(signals, rest)
        assert 9 not in rest


async def drain(signals: AsyncIterator[Signal], into: list[Any]) -> None:
    async for signal in signals:
        into.append(signal.body[0])


async def test_no_bus_and_no_daemon(bus: PrivateBus) -> None:
    with pytest.raises(errors.Unreachable, match="system bus cannot be reached"):
        async with Client(bus.address):
            pass
    await bus.start()
    async with Client(bus.address) as client:
        with pytest.raises(errors.Unreachable, match="is it running"):
            await client.get_all()
        with pytest.raises(errors.Unreachable):
            await client.wait("/org/immud1/job/1")


async def test_a_daemon_that_has_failed_is_not_waited_for(bus: PrivateBus) -> None:
    bus.activatable("org.immud1", "/bin/sleep 1000")
    await bus.start()
    await bus.peer("systemd_peer.py")
    async with Client(bus.address) as client:
        with pytest.raises(errors.Unreachable, match=r"immud\.service has failed"):
            await client.get_all()


async def test_nobody_is_not_authorised(bus: PrivateBus, link: Link) -> None:
    code = (
        f"import sys, asyncio; sys.path.insert(0, {bus.directory!r})\n"
        "from immud import errors\n"
        "from immud.client import Client\n"
        "async def main():\n"
        "    async with Client() as client:\n"
        "        try:\n"
        "            await client.open_tomb('home')\n"
        "        except errors.NotAuthorized as error:\n"
        "            print(error.exit_code, error)\n"
        "asyncio.run(main())\n"
    )
    # A checkout may be closed to nobody; the directory of the bus is not.
    shutil.copytree(f"{REPOSITORY}/immud", f"{bus.directory}/immud")
    script = f"{bus.directory}/client.py"
    with open(script, "w", encoding="utf-8") as file:
        file.write(code)
    text = await bus.run("/usr/bin/python3", "-B", script, uid=NOBODY)
    assert text.startswith("4 Only root may do this")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("org.freedesktop.DBus.Error.ServiceUnknown", errors.Unreachable),
        ("org.freedesktop.DBus.Error.NameHasNoOwner", errors.Unreachable),
        # The service is installed and not enabled, masked, or fails to start.
        ("org.freedesktop.systemd1.NoSuchUnit", errors.Unreachable),
        ("org.freedesktop.systemd1.UnitMasked", errors.Unreachable),
        ("org.freedesktop.DBus.Error.Spawn.ChildExited", errors.Unreachable),
        ("org.freedesktop.DBus.Error.TimedOut", errors.Unreachable),
        ("org.freedesktop.DBus.Error.AccessDenied", errors.NotAuthorized),
        (
            "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
            errors.InteractiveAuthorizationRequired,
        ),
        ("org.immud1.Error.WrongVolume", errors.WrongVolume),
        ("org.immud1.Error.WrongKey", errors.WrongKey),
        ("org.immud1.Error.Invented", errors.ImmudError),
        ("org.immud1.Error.InvalidConfiguration", errors.ImmudError),
    ],
)
def test_error_names_become_classes(name: str, kind: Any) -> None:
    error = from_bus(BusError(name, "Because."))
    assert type(error) is kind
