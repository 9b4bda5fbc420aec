"""A bus of the test's own: a real dbus-daemon, its socket in a temporary directory."""

import asyncio
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from dbus_next.constants import MessageType
from dbus_next.message import Message

from immud.bus.adapter import Connection

NOBODY, DAEMON = 65534, 1
"""Users every Debian has (the bus turns away ids without a name)."""
REPOSITORY = str(Path(__file__).parents[2])

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={directory}/socket</listen>
  <auth>EXTERNAL</auth>
  <servicedir>{directory}/services</servicedir>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true"/>
    <allow receive_type="method_call"/>
    <allow receive_type="signal"/>
    <allow receive_requested_reply="true"/>
  </policy>
</busconfig>
"""


async def stranger(
    address: str, path: str, interface: str, member: str, signature: str, *body: Any, to: str = ""
) -> None:
    """A signal of somebody's, to everybody or to one; it is delivered by the time this returns."""
    connection = await Connection.open(address)
    signal = Message(
        destination=to or None,  # type: ignore[arg-type]
        path=path,
        interface=interface,
        member=member,
        message_type=MessageType.SIGNAL,
        signature=signature,
        body=list(body),
    )
    connection._send(signal)
    await connection.call_bus("GetId")
    connection.close()


class PrivateBus:
    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="immud-bus-")
        os.chmod(self.directory, 0o755)  # nobody shall reach the socket as well
        self.socket = f"{self.directory}/socket"
        self.address = f"unix:path={self.socket}"
        os.mkdir(f"{self.directory}/services")
        Path(self.directory, "bus.conf").write_text(CONFIG.format(directory=self.directory))
        self.process: asyncio.subprocess.Process | None = None
        self.peers: list[asyncio.subprocess.Process] = []

    def activatable(self, name: str, command: str) -> None:
        """Let the bus start `command` for a call to `name`; before `start`."""
        text = f"[D-BUS Service]\nName={name}\nExec={command}\n"
        Path(self.directory, "services", f"{name}.service").write_text(text)

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            "dbus-daemon",
            f"--config-file={self.directory}/bus.conf",
            "--nofork",
            "--nopidfile",
            "--nosyslog",
            "--print-address=1",
            stdout=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert await asyncio.wait_for(self.process.stdout.readline(), 10)

    async def stop(self) -> None:
        """The end of the bus, with its socket: what a kill and a start leave in between."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()
        # Read to the end, or the transport of the pipe is still there afterwards.
        assert self.process.stdout is not None
        await self.process.stdout.read()
        self.process = None
        os.unlink(self.socket)

    async def close(self) -> None:
        for peer in self.peers:
            if peer.returncode is None:
                peer.kill()
            await peer.communicate()
        if self.process is not None:
            await self.stop()
        shutil.rmtree(self.directory)

    async def run(self, *argv: str, uid: int = 0, status: int | None = 0) -> str:
        """Run a command that talks to this bus; its output, standard error after it."""
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            user=uid,
            env={"DBUS_SYSTEM_BUS_ADDRESS": self.address, "PATH": os.environ["PATH"]},
        )
        try:
            async with asyncio.timeout(20):
                out, error = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()
            raise
        text = out.decode() + error.decode()
        assert status is None or process.returncode == status, (
            f"{argv}: {process.returncode}\n{text}"
        )
        return text

    async def busctl(self, *argv: str, uid: int = 0, status: int | None = 0) -> str:
        return await self.run(
            "busctl", f"--address={self.address}", "--no-pager", *argv, uid=uid, status=status
        )

    async def json(self, *argv: str) -> Any:
        """`busctl --json=short`, the data of it."""
        return json.loads(await self.busctl("--json=short", *argv))["data"]

    async def peer(
        self, script: str, *argv: str, stdin: bool = False
    ) -> asyncio.subprocess.Process:
        """A process of its own on this bus, from a script beside this file; it has said
        `ready` by the time this returns. With `stdin` it can be told something."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name(script)),
            self.address,
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin else None,
            stdout=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": REPOSITORY, "PATH": os.environ["PATH"]},
        )
        self.peers.append(process)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 10)
        assert line == b"ready\n", line
        return process
