"""The daemon as its clients see it: calls, properties, signals, errors with an exit code.

Passphrases travel as a pipe; everything else is plain values.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from immud import errors
from immud.bus.adapter import (
    ALLOW_INTERACTIVE_AUTHORIZATION,
    BusError,
    Connection,
    Disconnected,
    Signal,
    bus_address,
    plain,
    variant,
)
from immud.bus.names import NAME, ROOT
from immud.bus.standard import DBUS, OBJECT_MANAGER, PROPERTIES

MANAGER = "org.immud1.Manager"
TOMB = "org.immud1.Tomb"
JOB = "org.immud1.Job"

CALL_TIMEOUT = 330.0
"""Seconds for a call somebody may first have to type a password for."""
UNREACHABLE = (
    *("ServiceUnknown", "NameHasNoOwner", "Disconnected", "NoReply", "NoServer"),
    "TimedOut",  # of an activation, after 25 s
)
ACTIVATION = ("org.freedesktop.systemd1.", "org.freedesktop.DBus.Error.Spawn.")
SYSTEMD = "org.freedesktop.systemd1"
UNIT = "/org/freedesktop/systemd1/unit/immud_2eservice"
FAILED = (
    "immud.service has failed; what it said is in: systemctl status immud. "
    "To start it again: sudo systemctl restart immud"
)
NOT_RUNNING = "immud does not answer on the bus; is it running? See: systemctl status immud"

Objects = dict[str, dict[str, dict[str, Any]]]


class Client:
    """A connection to the daemon. `async with Client() as client:` opens and closes it.

    Every method raises the class of immud.errors that the daemon's answer names,
    Unreachable where there is none, NotAuthorized where it is no.
    """

    def __init__(self, address: str = "") -> None:
        self._address = address or bus_address()
        self._connection: Connection | None = None
        self._asked = False

    async def __aenter__(self) -> Self:
        try:
            self._connection = await Connection.open(self._address)
        except (OSError, BusError, TimeoutError) as error:
            raise errors.Unreachable(
                f"The system bus cannot be reached ({error}); is dbus.service running?"
            ) from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def call(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *body: Any,
        fds: Sequence[int] = (),
        timeout: float = CALL_TIMEOUT,
    ) -> list[Any]:
        """Call a method of the daemon and return the body of the reply."""
        if not self._asked:
            await self._not_failed()
        try:
            return await self._bus.call(
                NAME,
                path,
                interface,
                member,
                signature,
                *body,
                fds=fds,
                flags=ALLOW_INTERACTIVE_AUTHORIZATION,
                timeout=timeout,
            )
        except BusError as error:
            raise from_bus(error) from None
        except (Disconnected, TimeoutError):
            raise errors.Unreachable(NOT_RUNNING) from None

    async def _not_failed(self) -> None:
        """Raise Unreachable for a daemon that has failed: its activation only would time out."""
        self._asked = True
        try:
            if (await self._bus.call_bus("NameHasOwner", "s", NAME))[0]:
                return
            interface = f"{SYSTEMD}.Unit"
            (state,) = await self._bus.call(
                SYSTEMD, UNIT, PROPERTIES, "Get", "ss", interface, "ActiveState", timeout=5
            )
        except (BusError, Disconnected, TimeoutError):
            return
        if state == "failed":
            raise errors.Unreachable(FAILED)

    async def get(self, path: str, interface: str, name: str) -> Any:
        """One property."""
        return (await self.call(path, PROPERTIES, "Get", "ss", interface, name))[0]

    async def get_all(self, path: str = ROOT, interface: str = MANAGER) -> dict[str, Any]:
        """The properties of one interface, the Manager's if nothing else is said."""
        values: dict[str, Any] = (await self.call(path, PROPERTIES, "GetAll", "s", interface))[0]
        return values

    async def objects(self) -> Objects:
        """Every mount, tomb and job: path, interface, property, value."""
        objects: Objects = (await self.call(ROOT, OBJECT_MANAGER, "GetManagedObjects"))[0]
        return objects

    async def mounts(self) -> list[list[str]]:
        """Where, what, state and object of each mount."""
        mounts: list[list[str]] = (await self.call(ROOT, MANAGER, "ListMounts"))[0]
        return mounts

    async def links(self) -> list[list[str]]:
        """Path, target, state and kind of each link."""
        links: list[list[str]] = (await self.call(ROOT, MANAGER, "ListLinks"))[0]
        return links

    async def tombs(self) -> list[list[str]]:
        """Name, state, mount point and object of each tomb."""
        tombs: list[list[str]] = (await self.call(ROOT, MANAGER, "ListTombs"))[0]
        return tombs

    async def tomb(self, name: str) -> str:
        """The object of a tomb. Raises NoSuchTomb."""
        path: str = (await self.call(ROOT, MANAGER, "GetTomb", "s", name))[0]
        return path

    async def verify(self) -> list[dict[str, Any]]:
        """Have everything looked at; the properties of each finding."""
        findings: list[dict[str, Any]] = (await self.call(ROOT, MANAGER, "Verify", "a{sv}", {}))[0]
        return findings

    async def reconcile(self) -> str:
        """Start it; returns the job."""
        job: str = (await self.call(ROOT, MANAGER, "Reconcile", "a{sv}", {}))[0]
        return job

    async def reload(self) -> str:
        """Start it; returns the job."""
        job: str = (await self.call(ROOT, MANAGER, "Reload", "a{sv}", {}))[0]
        return job

    async def open_tomb(
        self, name: str, passphrase: bytes | None = None, *, read_only: bool = False
    ) -> str:
        """Start opening a tomb, with the passphrase as it is; returns the job."""
        options = {"read-only": variant("b", True)} if read_only else {}
        if passphrase is None:
            return await self._start(name, "Open", options)
        with memoryview(passphrase) as data, _memory(data) as fd:
            options["passphrase-fd"] = variant("h", 0)
            return await self._start(name, "Open", options, fds=(fd.fileno(),))

    async def close_tomb(self, name: str, *, force: bool = False) -> str:
        """Start closing a tomb; returns the job."""
        return await self._start(name, "Close", {"force": variant("b", force)})

    async def eject_tomb(self, name: str, *, force: bool = False) -> str:
        """Start closing a tomb and powering its drive down; returns the job."""
        return await self._start(name, "Eject", {"force": variant("b", force)})

    async def _start(
        self, name: str, member: str, options: Mapping[str, Any], fds: Sequence[int] = ()
    ) -> str:
        path = await self.tomb(name)
        job: str = (await self.call(path, TOMB, member, "a{sv}", options, fds=fds))[0]
        return job

    async def wait(self, job: str) -> None:
        """Wait until a job is done. Raises the error it failed with, or Cancelled."""
        # The daemon never gives up on a job by itself, and neither do we while it is there.
        await self.call(ROOT, MANAGER, "WaitForJob", "ot", job, 0, timeout=86400.0)

    async def cancel(self, job: str) -> None:
        await self.call(job, JOB, "Cancel")

    async def subscribe(self) -> AsyncIterator[Signal]:
        """Every signal of the daemon from now on, with plain values in it.

        Once this has returned nothing is missed: read the state after it. The daemon's
        coming and going are NameOwnerChanged signals (name, old owner, new owner). The
        iterator ends by raising Unreachable when the bus itself goes.
        """
        bus = self._bus
        queue: asyncio.Queue[Signal | None] = asyncio.Queue()
        owner = ""

        def listener(signal: Signal) -> None:
            nonlocal owner
            # A match is for the whole connection, and brings what others asked for too.
            driver = signal.sender == DBUS and signal.member == "NameOwnerChanged"
            if driver and signal.body[0] == NAME:
                owner = signal.body[2]
            elif driver or not owner or signal.sender != owner:
                return
            signal.body = [plain(value) for value in signal.body]
            queue.put_nowait(signal)

        bus.on_signal.append(listener)
        bus.lost.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            rule = f"type='signal',sender='{DBUS}',member='NameOwnerChanged',arg0='{NAME}'"
            await bus.call_bus("AddMatch", "s", rule)
            await bus.call_bus("AddMatch", "s", f"type='signal',sender='{NAME}'")
            (owner,) = await bus.call_bus("GetNameOwner", "s", NAME)
        except (Disconnected, TimeoutError):
            raise errors.Unreachable("The system bus went away.") from None
        except BusError as error:
            if not error.name.endswith(".NameHasNoOwner"):
                raise from_bus(error) from None
        return _drain(queue)

    @property
    def _bus(self) -> Connection:
        assert self._connection is not None, "Client is used within `async with`"
        return self._connection


async def _drain(queue: "asyncio.Queue[Signal | None]") -> AsyncIterator[Signal]:
    while signal := await queue.get():
        yield signal
    raise errors.Unreachable("The system bus went away.")


def _memory(data: memoryview) -> Any:
    """A memfd that holds `data`, as a file that closes itself; nothing touches a disk."""
    file = os.fdopen(os.memfd_create("immud-passphrase", os.MFD_CLOEXEC), "wb", buffering=0)
    file.write(data)
    return file


def from_bus(error: BusError) -> errors.ImmudError:
    """The exception an error reply stands for."""
    text = str(error)
    short = error.name.rpartition(".")[2]
    if error.name.startswith(f"{NAME}.Error."):
        for kind in _kinds(errors.ImmudError):
            # Not ConfigError and its like, which are made of more than a text.
            if kind.name == short and kind.__init__ is errors.ImmudError.__init__:
                return kind(text)
    if short == "InteractiveAuthorizationRequired":
        return errors.InteractiveAuthorizationRequired(text)
    if short in ("AccessDenied", "AuthFailed"):
        return errors.NotAuthorized(text)
    # Where the service is not enabled or can't start, its activation fails: in systemd's words.
    activation = error.name.startswith(ACTIVATION)
    if short in UNREACHABLE or activation:
        return errors.Unreachable(NOT_RUNNING)
    return errors.ImmudError(text)


def _kinds(kind: type[errors.ImmudError]) -> list[type[errors.ImmudError]]:
    """A class and all below it."""
    return [kind, *(each for sub in kind.__subclasses__() for each in _kinds(sub))]
