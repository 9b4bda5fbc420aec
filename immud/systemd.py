"""systemd's manager, asked over the system bus.

pystemd would hold the GIL for as long as PID 1 takes; a call here is a message and
the loop goes on.
"""

import asyncio
import os
import string
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from immud.bus.adapter import BusError, Connection, Disconnected, Signal, variant
from immud.errors import ImmudError, Unreachable

NAME = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
UNIT = "org.freedesktop.systemd1.Unit"
RULE = f"type='signal',sender='{NAME}',path='{PATH}',interface='{MANAGER}',member='JobRemoved'"
PRIVATE = "/run/systemd/private"
"""PID 1's own socket, for root: it is there when the bus is not, as long as the system lives."""
JOB_TIMEOUT = 90.0
"""Seconds; DefaultTimeoutStartSec."""


_KEPT = frozenset(string.ascii_letters + string.digits + ":_.")
NAME_MAX = 255
"""Characters of a unit's name (UNIT_NAME_MAX)."""


def escape(text: str) -> str:
    """Text as part of a unit's name, as systemd-escape(1) writes it."""
    escaped = ""
    for at, character in enumerate(text):
        if character == "/":
            escaped += "-"
        elif character in _KEPT and (at or character != "."):
            escaped += character
        else:
            escaped += "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
    return escaped


class UnitFailed(ImmudError):
    """A unit did not start or stop; the text names it and how to see why."""

    name = "UnitFailed"


class Systemd:
    """`connection` gives the current one, or None while there is no bus.

    Every method raises Unreachable where the bus or systemd does not answer, and
    UnitFailed where the answer is no.
    """

    def __init__(self, connection: Callable[[], Connection | None]) -> None:
        self._connection = connection

    async def start_unit(
        self, name: str, mode: str = "replace", timeout: float = JOB_TIMEOUT
    ) -> None:
        """Start a unit and wait until it has."""
        await self._job("StartUnit", name, "ss", mode, timeout=timeout)

    async def run_unit(
        self, name: str, properties: Mapping[str, tuple[str, Any]], timeout: float = JOB_TIMEOUT
    ) -> None:
        """Start a transient unit of these properties, each a (signature, value), and wait until
        it has: with Type=oneshot, until it has ended. See systemd.directives(7)."""
        wanted = [[key, variant(*value)] for key, value in properties.items()]
        signature = "ssa(sv)a(sa(sv))"
        await self._job("StartTransientUnit", name, signature, "fail", wanted, [], timeout=timeout)

    async def stop_unit(
        self, name: str, mode: str = "replace", timeout: float = JOB_TIMEOUT
    ) -> None:
        """Stop a unit and wait until it has. One that is not loaded is stopped already."""
        try:
            await self._job("StopUnit", name, "ss", mode, timeout=timeout)
        except UnitFailed as error:
            if not isinstance(error.__cause__, BusError) or (
                error.__cause__.name != f"{NAME}.NoSuchUnit"
            ):
                raise

    async def reload(self) -> None:
        """daemon-reload; the answer comes when it is done."""
        await self._call("the manager", "Reload", timeout=JOB_TIMEOUT)

    async def system_state(self) -> str:
        """What `systemctl is-system-running` prints."""
        value: str = (
            await self._call(
                "the manager",
                "Get",
                "ss",
                MANAGER,
                "SystemState",
                interface="org.freedesktop.DBus.Properties",
            )
        )[0]
        return value

    async def unit_state(self, name: str) -> str:
        """ActiveState of a unit; `inactive` of one that is not loaded."""
        return str(await self._of_unit(name, "ActiveState") or "inactive")

    async def settled(self, name: str, waiting: Callable[[], None]) -> None:
        """Wait until no job of a unit is queued or under way; `waiting` is called if one is."""
        async with self._removed_jobs() as removed:
            _, job = await self._of_unit(name, "Job") or (0, "/")
            if job == "/":
                return
            waiting()
            while (await removed.get())[0] not in (job, ""):
                pass

    async def _of_unit(self, name: str, key: str) -> Any:
        """A property of a unit, or None where it is not loaded."""
        where = "org.freedesktop.DBus.Properties"
        try:
            (path,) = await self._call(name, "GetUnit", "s", name)
            (value,) = await self._call(name, "Get", "ss", UNIT, key, path=path, interface=where)
        except UnitFailed:  # now, or between the two calls
            return None
        return value

    async def _job(
        self, member: str, name: str, signature: str, *body: Any, timeout: float
    ) -> None:
        try:
            async with self._removed_jobs() as removed, asyncio.timeout(timeout):
                (path,) = await self._call(name, member, signature, name, *body, timeout=timeout)
                while True:
                    job, result = await removed.get()
                    if job in (path, ""):
                        break
        except TimeoutError:
            raise UnitFailed(
                f"{member} of {name} has not ended after {timeout:.0f} s; "
                f"see: systemctl status {name}"
            ) from None
        if not job:
            raise Unreachable(f"The bus went away before {member} of {name} had ended.")
        if result not in ("done", "skipped"):
            raise UnitFailed(
                f"{member} of {name} ended with {result!r}; see: systemctl status {name}"
            )

    @asynccontextmanager
    async def _removed_jobs(self) -> AsyncIterator[asyncio.Queue[tuple[str, str]]]:
        """Jobs that end from now on. Listened to only meanwhile: PID 1 announces every job
        of the system. The queue is there before the call, since a job can end sooner
        than the reply that names it is looked at."""
        connection = self._bus()
        queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

        def listener(signal: Signal) -> None:
            what = (signal.interface, signal.member, signal.signature)
            if what == (MANAGER, "JobRemoved", "uoss") and signal.path == PATH:
                queue.put_nowait((signal.body[1], signal.body[3]))

        def lost(_: object) -> None:
            queue.put_nowait(("", "lost"))

        connection.on_signal.append(listener)
        connection.lost.add_done_callback(lost)
        try:
            await self._on_bus(connection, "AddMatch")
            yield queue
        finally:
            connection.lost.remove_done_callback(lost)
            connection.on_signal.remove(listener)
            await self._on_bus(connection, "RemoveMatch")

    async def _on_bus(self, connection: Connection, member: str) -> None:
        if connection.direct:
            return  # PID 1 tells whoever is connected to its own socket everything
        try:
            await connection.call_bus(member, "s", RULE)
        except (BusError, Disconnected, TimeoutError) as error:
            if member == "AddMatch":
                raise Unreachable(f"The bus does not answer: {error}") from error

    async def _call(
        self,
        about: str,
        member: str,
        signature: str = "",
        *body: Any,
        path: str = PATH,
        interface: str = MANAGER,
        timeout: float = 25.0,
    ) -> list[Any]:
        try:
            return await self._bus().call(
                NAME, path, interface, member, signature, *body, timeout=timeout
            )
        except BusError as error:
            raise UnitFailed(f"{member} of {about}: {error}") from error
        except (Disconnected, TimeoutError) as error:
            raise Unreachable(f"systemd does not answer on the bus: {error}") from error

    def _bus(self) -> Connection:
        connection = self._connection()
        if connection is None:
            raise Unreachable("There is no system bus to reach systemd over.")
        return connection
