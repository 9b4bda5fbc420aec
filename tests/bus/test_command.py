"""The `immud` command against a daemon that lives in memory, over a real bus."""

import asyncio
import json
import os
import pty
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from immud.bus.link import Link
from immud.cli.tomb import follow
from immud.client import Client
from immud.model import ManagerState, Problem, Severity, TombState
from tests.bus.memory import MemoryService
from tests.bus.private import NOBODY, REPOSITORY, PrivateBus

PYTHON = ("env", f"PYTHONPATH={REPOSITORY}", sys.executable)
IMMUD = (*PYTHON, "-m", "immud")


def as_nobody(bus: PrivateBus) -> tuple[str, ...]:
    """The command for another user: the checkout may be closed to nobody."""
    shutil.copytree(f"{REPOSITORY}/immud", f"{bus.directory}/immud")
    return ("env", "-C", bus.directory, sys.executable, "-B", "-m", "immud")


STATUS = """\
immud 0.1.0: running, /usr and / are read-only

Problems
notice:  /opt is a directory.

Mounts
  PATH  STATE    ACCESS     FROM
  /     mounted  writable   /dev/vda1 (ext4)
  /etc  mounted  writable   /dev/vda1 (ext4)
  /usr  mounted  read-only  /dev/vda1 (ext4)
  /var  mounted  writable   /dev/vda1 (ext4)

Links
  PATH   STATE    LEADS TO
  /home  adopted  var/home

Tombs
  NAME  STATE    AT         DRIVE
  home  present  /var/home  0-1
"""


async def test_status(bus: PrivateBus, link: Link) -> None:
    assert await bus.run(*as_nobody(bus), "status", uid=NOBODY) == STATUS


async def test_status_for_programs(bus: PrivateBus, link: Link, service: MemoryService) -> None:
    service.now_tombs["home"].become(state=TombState.OPEN)
    record = json.loads(await bus.run(*IMMUD, "status", "--json"))
    assert record["home_tomb"] == "home"
    assert record["state"] == "running"
    assert record["boot"] == {"plan": "compiled", "fallback": False, "ready_us": 21000, "tries": 0}
    assert record["tombs"][0]["state"] == "open"
    assert record["problems"][0]["data"] == {"path": "/opt"}
    assert [mount["where"] for mount in record["mounts"]] == ["/", "/etc", "/usr", "/var"]


async def test_nobody_there_is_3(bus: PrivateBus) -> None:
    for command in ("status", "watch", "open", "close", "eject"):
        text = await bus.run(*IMMUD, command, status=3)
        assert text.startswith("immud: "), text
        assert len(text.splitlines()) == 1
    await bus.start()
    text = await bus.run(*IMMUD, "close", status=3)
    assert text == (
        "immud: immud does not answer on the bus; is it running? See: systemctl status immud\n"
    )


async def test_open_and_close(bus: PrivateBus, link: Link, service: MemoryService) -> None:
    assert await bus.run(*IMMUD, "open") == "Tomb home is open at /var/home.\n"
    assert service.now_tombs["home"].passphrases == [None]
    assert await bus.run(*IMMUD, "open", "home") == "Tomb home is open already.\n"
    text = await bus.run(*IMMUD, "close", status=1)
    assert text == (
        "immud: bash (pid 12) is in the way; end it, or use --force. "
        "To end them: immud close --force home\n"
    )
    assert await bus.run(*IMMUD, "close", "--force") == "Tomb home is closed.\n"
    text = await bus.run(*IMMUD, "eject", "home", "--force")
    assert text == "Tomb home is closed, and its drive can be unplugged.\n"


async def test_a_name_nobody_knows(bus: PrivateBus, link: Link) -> None:
    text = await bus.run(*IMMUD, "open", "nosuch", status=1)
    assert text == "immud: No tomb 'nosuch' is configured; configured: home.\n"


async def test_not_authorised_is_4(bus: PrivateBus, link: Link, service: MemoryService) -> None:
    text = await bus.run(*as_nobody(bus), "close", "--force", uid=NOBODY, status=4)
    assert text.startswith("immud: ")
    assert service.now_tombs["home"].options == []


@asynccontextmanager
async def started(bus: PrivateBus, *argv: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command that goes on running; it is killed in the end if it has not ended by then."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"DBUS_SYSTEM_BUS_ADDRESS": bus.address, "PATH": os.environ["PATH"]},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 20)).decode()


async def test_interrupted_it_cancels_what_it_started(
    bus: PrivateBus, link: Link, service: MemoryService
) -> None:
    home = service.now_tombs["home"]
    home.gate.clear()
    async with started(bus, *IMMUD, "open") as process, asyncio.timeout(30):
        while home.view.state != TombState.UNLOCKING:
            await asyncio.sleep(0.02)
        process.send_signal(2)
        await process.wait()
        out, error = await process.communicate()
        while home.view.state == TombState.UNLOCKING or service.jobs():
            await asyncio.sleep(0.02)
    assert (process.returncode, out, error) == (-2, b"", b"")
    assert home.view.state == TombState.PRESENT


async def test_interrupted_before_it_knows_what_it_started(
    bus: PrivateBus, link: Link, service: MemoryService
) -> None:
    home = service.now_tombs["home"]
    home.gate.clear()
    async with Client(bus.address) as client, asyncio.timeout(30):

        async def start() -> str:
            job = await client.open_tomb("home")
            await asyncio.sleep(0.2)  # the answer is on its way
            return job

        following = asyncio.ensure_future(follow(client, "home", start))
        while home.view.state != TombState.UNLOCKING:
            await asyncio.sleep(0.02)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        while service.jobs():
            await asyncio.sleep(0.02)
    assert home.view.state == TombState.PRESENT


async def test_watch(bus: PrivateBus, link: Link, service: MemoryService) -> None:
    home = service.now_tombs["home"]
    async with started(bus, *IMMUD, "watch") as process:
        assert (await line(process))[10:] == "immud: running\n"
        assert (await line(process))[10:] == "notice:  /opt is a directory.\n"
        home.gate.clear()
        opening = asyncio.ensure_future(bus.run(*IMMUD, "open"))
        seen = [(await line(process))[10:]]
        while seen[-1] != "tomb home: unlocking\n":
            seen.append((await line(process))[10:])
        home.gate.set()
        await opening
        while not seen[-1].startswith("job 1: done"):
            seen.append((await line(process))[10:])
        assert seen[0] == "job 1: open tomb home\n"
        assert "tomb home: open\n" in seen
        assert "immud: HomeTomb = tomb home\n" in seen
        usr = service.now_mounts["/usr"]
        service.now_mounts["/usr"] = replace(usr, read_only=False, state="writable")
        service.now_state = ManagerState.DEGRADED
        service.now_problems = (Problem(Severity.ERROR, "x", "a\x1b[31m"),)
        home.become(label="Mine")
        seen = [await line(process)]
        while not seen[-1].endswith("Label = Mine\n"):
            seen.append(await line(process))
        text = "".join(one[10:] for one in seen)
        assert "mount /usr: writable\n" in text
        assert "immud: degraded\n" in text
        assert "error:   a\\033[31m\n" in text
        process.send_signal(2)
        await process.wait()
        assert process.returncode == -2


async def test_watch_for_programs_outlives_the_daemon(
    bus: PrivateBus, service: MemoryService
) -> None:
    await bus.start()
    link = asyncio.ensure_future(Link(service, address=bus.address).run())
    try:
        while "PID=" not in await bus.busctl("status", "org.immud1", status=None):
            await asyncio.sleep(0.05)
        async with started(bus, *IMMUD, "watch", "--json") as process:
            first = json.loads(await line(process))
            assert first["object"] == "/org/immud1"
            assert first["values"]["State"] == "running"
            assert first["realtime_usec"] > 1_700_000_000_000_000
            link.cancel()
            await asyncio.wait([link])
            assert json.loads(await line(process))["event"] == "daemon-stopped"
            link = asyncio.ensure_future(Link(service, address=bus.address).run())
            events = [json.loads(await line(process))]
            assert events[0]["event"] == "daemon-started"
            await bus.run(*IMMUD, "open")
            while events[-1].get("values", {}).get("State") != "open":
                events.append(json.loads(await line(process)))
            assert events[-1]["object"] == "/org/immud1/tomb/home"
    finally:
        link.cancel()
        await asyncio.wait([link])


TYPED = """
import sys
from immud.early import inputs
inputs.MAIN = sys.argv.pop()
from immud.cli import main
sys.exit(main())
"""


async def test_the_passphrase_typed_arrives_and_is_never_shown(
    bus: PrivateBus, link: Link, service: MemoryService, tmp_path: Path
) -> None:
    config = tmp_path / "immud.toml"
    config.write_text("[tomb.home]\nlabel = 'x'\nkey = 'ask'\n")
    keyboard, terminal = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(*PYTHON, "-c", TYPED, "open", str(config)),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={"DBUS_SYSTEM_BUS_ADDRESS": bus.address, "PATH": os.environ["PATH"]},
        )
        shown = b""
        async with asyncio.timeout(30):
            while b"Passphrase for tomb home: " not in shown:
                shown += await asyncio.to_thread(os.read, keyboard, 4096)
            os.write(keyboard, b"wrong\n")
            while shown.count(b"Passphrase for tomb home: ") < 2:
                shown += await asyncio.to_thread(os.read, keyboard, 4096)
            assert b"does not open the volume" in shown
            os.write(keyboard, b" s\xc3\xa9same\xff \n")
            while b"is open at /var/home" not in shown:
                shown += await asyncio.to_thread(os.read, keyboard, 4096)
            await process.wait()
        assert process.returncode == 0
        assert service.now_tombs["home"].passphrases == [b"wrong", b" s\xc3\xa9same\xff "]
        assert b"same" not in shown
    finally:
        os.close(keyboard)
        os.close(terminal)
