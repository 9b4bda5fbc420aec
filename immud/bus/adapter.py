"""Calls, replies and signals: the one file that knows dbus-next.

Of the library only its marshalling is used (`Message`, `Variant`, `Unmarshaller`);
dbus-fast has the same three and serves as well. Its object server and connection
are not: they lose the sender and the flags of a call, leave sockets and descriptors
open, never answer after a disconnection and send tracebacks to strangers.
"""

import asyncio
import io
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from immud import lean, log
from immud.bus.stream import MESSAGE_MAX, Stream, close_all, connect

lean.block()
try:
    # The package itself would bring a connection, proxies and an XML parser.
    lean.bare("dbus_next")
    import dbus_next.errors  # noqa: F401 - the first, or they import one another in a circle
    from dbus_next._private.unmarshaller import Unmarshaller
    from dbus_next.constants import MessageFlag, MessageType
    from dbus_next.message import Message
    from dbus_next.signature import SignatureTree, Variant
except ImportError:
    from dbus_fast import Message, MessageFlag, MessageType, Variant  # type: ignore
    from dbus_fast._private.unmarshaller import Unmarshaller  # type: ignore
    from dbus_fast.signature import SignatureTree  # type: ignore

__all__ = [
    "BusError",
    "Call",
    "Connection",
    "Disconnected",
    "Signal",
    "bus_address",
    "plain",
    "variant",
]

DBUS = "org.freedesktop.DBus"
DBUS_PATH = "/org/freedesktop/DBus"
NO_REPLY_EXPECTED = 1
NO_AUTO_START = 2
ALLOW_INTERACTIVE_AUTHORIZATION = 4
CALL_TIMEOUT = 25.0
"""Seconds; what libdbus and sd-bus wait."""
SIGNATURES_KEPT = 512


class BusError(Exception):
    """An error reply: received from a peer, or to be sent to one."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class Disconnected(ConnectionError):
    """The connection ended before there was an answer."""


class Signal:
    """A signal that arrived."""

    __slots__ = ("body", "interface", "member", "path", "sender", "signature")

    def __init__(self, message: Any) -> None:
        self.sender: str = message.sender or ""
        self.path: str = message.path
        self.interface: str = message.interface
        self.member: str = message.member
        self.signature: str = message.signature
        self.body: list[Any] = message.body


class Call:
    """A method call that arrived. It owns the descriptors that came with it."""

    __slots__ = (
        *("sender", "path", "interface", "member", "signature", "body"),
        *("flags", "serial", "fds", "uid"),
    )

    def __init__(self, message: Any, fds: list[int]) -> None:
        self.sender: str = message.sender or ""
        self.path: str = message.path
        self.interface: str = message.interface or ""
        self.member: str = message.member
        self.signature: str = message.signature
        self.body: list[Any] = message.body
        self.flags = int(message.flags)
        self.serial: int = message.serial
        self.fds = fds
        self.uid = -1  # who calls: known to handlers that are coroutines

    @property
    def wants_reply(self) -> bool:
        return not self.flags & NO_REPLY_EXPECTED

    @property
    def interactive(self) -> bool:
        """Whether the caller is willing to wait while a person is asked for a password."""
        return bool(self.flags & ALLOW_INTERACTIVE_AUTHORIZATION)

    def take_fd(self, index: int) -> int:
        """The descriptor a value of type `h` stands for; it is the caller's to close now.

        Raises BusError where the message brought no such descriptor.
        """
        if not 0 <= index < len(self.fds) or self.fds[index] < 0:
            raise BusError(f"{DBUS}.Error.InvalidArgs", "The file descriptor is missing.")
        fd, self.fds[index] = self.fds[index], -1
        return fd

    def keep(self, count: int) -> None:
        """Close all descriptors but the first ones, as many as somebody may still take."""
        self.fds, spare = self.fds[:count], self.fds[count:]
        close_all(spare)

    def close(self) -> None:
        """Close the descriptors nobody has taken."""
        close_all([fd for fd in self.fds if fd >= 0])
        self.fds = []


class Connection:
    """One connection to a bus, from Hello until it is lost; it never comes back.

    `on_call` and `on_signal` run on the loop for each message, must not block, and
    whoever sets `on_call` replies to each call and closes it. A signal that was addressed
    to us is dropped unless the bus sent it. `lost` is done when the connection has ended.
    """

    def __init__(self) -> None:
        self.unique_name = ""
        self.direct = False
        self.on_call: Callable[[Call], None] | None = None
        self.on_signal: list[Callable[[Signal], None]] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._stream: Stream
        self._serial = 0
        self._pending: dict[int, asyncio.Future[Any]] = {}

    @classmethod
    async def open(
        cls,
        address: str,
        timeout: float = CALL_TIMEOUT,
        *,
        direct: bool = False,
        unasked_max: int = MESSAGE_MAX,
    ) -> "Connection":
        """Connect, authenticate and say Hello; `direct` to a peer, which is no bus.

        Calls and signals of more than `unasked_max` bytes are not even read.

        Raises OSError where nobody listens or the bus turns us away, TimeoutError.
        """
        self = cls()
        self.direct = direct
        async with asyncio.timeout(timeout):
            sock = await connect(address)
            self._stream = Stream(sock, self._received, self._ended, unasked_max)
            if direct:
                return self
            try:
                (self.unique_name,) = await self.call(DBUS, DBUS_PATH, DBUS, "Hello")
            except BaseException:
                self.close()
                raise
        return self

    def close(self) -> None:
        """Close the socket; calls under way raise Disconnected."""
        self._stream.close()

    # What we send

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *body: Any,
        fds: Sequence[int] = (),
        flags: int = 0,
        timeout: float = CALL_TIMEOUT,
    ) -> list[Any]:
        """Call a method and return the body of its reply, as plain values.

        A reply that is one descriptor (`h`) gives that, which is the caller's to close.
        Raises BusError for an error reply, Disconnected, TimeoutError.
        """
        message = Message(
            destination=destination,
            path=path,
            interface=interface or None,  # type: ignore[arg-type]
            member=member,
            signature=signature,
            body=wire(list(body)),
            flags=MessageFlag(flags),
        )
        serial = self._send(message, fds)
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[serial] = reply
        try:
            async with asyncio.timeout(timeout):
                answer, received = await reply
        except BaseException:
            # It may have come in the moment in which nobody waited for it any more.
            if reply.done() and not reply.cancelled() and not reply.exception():
                close_all(reply.result()[1])
            raise
        finally:
            del self._pending[serial]
        if answer.signature == "h" and len(received) == 1:
            return list(received)
        close_all(received)
        if answer.message_type is MessageType.ERROR:
            text = answer.body[0] if answer.signature.startswith("s") else ""
            raise BusError(answer.error_name, text or answer.error_name)
        return [plain(value) for value in answer.body]

    async def call_bus(self, member: str, signature: str = "", *body: Any) -> list[Any]:
        """Call the bus driver itself (D-Bus specification, "Message Bus Messages")."""
        return await self.call(DBUS, DBUS_PATH, DBUS, member, signature, *body)

    def emit(self, path: str, interface: str, member: str, signature: str, *body: Any) -> None:
        """Send a signal to whoever listens; nothing happens once the connection is lost."""
        if not self._stream.closed:
            self._send(
                Message(
                    path=path,
                    interface=interface,
                    member=member,
                    signature=signature,
                    body=wire(list(body)),
                    message_type=MessageType.SIGNAL,
                )
            )

    def reply(self, call: Call, signature: str = "", *body: Any) -> None:
        """Answer a call, if it wants an answer and the connection is still there.

        Raises an exception of the library where the body does not fit the signature.
        """
        self._answer(call, MessageType.METHOD_RETURN, signature, body)

    def reply_error(self, call: Call, name: str, text: str) -> None:
        self._answer(call, MessageType.ERROR, "s", (text,), name)

    def _answer(
        self, call: Call, kind: MessageType, signature: str, body: Sequence[Any], name: str = ""
    ) -> None:
        if call.wants_reply and not self._stream.closed:
            self._send(
                Message(
                    destination=call.sender,
                    message_type=kind,
                    reply_serial=call.serial,
                    error_name=name or None,  # type: ignore[arg-type]
                    signature=signature,
                    body=wire(list(body)),
                )
            )

    def _send(self, message: Any, fds: Sequence[int] = ()) -> int:
        # 0 is no serial, and 2**32 does not fit (D-Bus specification, "Message Format").
        self._serial = self._serial % 0xFFFFFFFF + 1
        message.serial = self._serial
        message.unix_fds = list(fds)
        try:
            self._stream.send(bytes(message._marshall(True)), fds)
        except ConnectionResetError as error:
            raise Disconnected(str(error)) from None
        return self._serial

    # What arrives

    def _received(self, data: bytes, fds: list[int]) -> None:
        try:
            message = Unmarshaller(io.BytesIO(data)).unmarshall()  # type: ignore[no-untyped-call]
        except Exception as error:
            # Whatever a stranger manages to send: at worst that one message is lost.
            log.get().debug("A message on the bus makes no sense.", error=repr(error))
            message = None
        # The library caches each signature it ever saw, and strangers choose signatures.
        cache = getattr(SignatureTree, "_cache", None)
        if cache is not None and len(cache) > SIGNATURES_KEPT:
            cache.clear()
        if message is None:
            close_all(fds)
            return
        try:
            self._handle(message, fds)
        except Exception as error:
            # One message a handler stumbled over; the connection and its others go on.
            log.get().defect("A message on the bus was not handled.", error)

    def _handle(self, message: Any, fds: list[int]) -> None:
        if message.message_type is MessageType.METHOD_CALL:
            call = Call(message, fds)
            if self.on_call is not None:
                self.on_call(call)
            else:
                call.close()
                self.reply_error(call, f"{DBUS}.Error.UnknownObject", "Nothing is here to call.")
            return
        if message.message_type is MessageType.SIGNAL:
            close_all(fds)  # nothing we listen to passes descriptors
            # What is sent to everybody comes by a match rule, and ours name the sender. What is
            # addressed to us needs no rule, and anybody may send it: only the bus has reason to.
            if message.destination and message.sender != DBUS and not self.direct:
                return
            for listener in tuple(self.on_signal):
                listener(Signal(message))
        elif (reply := self._pending.get(message.reply_serial)) and not reply.done():
            reply.set_result((message, fds))
        else:
            close_all(fds)

    def _ended(self, error: Exception | None) -> None:
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(Disconnected("The connection to the bus was lost."))
        if not self.lost.done():
            self.lost.set_result(error)


def variant(signature: str, value: Any) -> Variant:
    """A value with its type, for where a signature says `v`."""
    return Variant(signature, wire(value))


def wire(value: Any) -> Any:
    """A value as it can be sent: lists for tuples, and strings that are UTF-8.

    File names and labels are bytes; what is no UTF-8 in them shows as \\xNN escapes.
    """
    if isinstance(value, str):
        return value.encode(errors="surrogateescape").decode(errors="backslashreplace")
    if isinstance(value, list | tuple):
        return [wire(item) for item in value]
    if isinstance(value, Mapping):
        return {wire(key): wire(item) for key, item in value.items()}
    return value


def plain(value: Any) -> Any:
    """A value with its variants opened, all the way down."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def bus_address() -> str:
    """Where the system bus listens; DBUS_SYSTEM_BUS_ADDRESS is honoured as by busctl."""
    return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "/run/dbus/system_bus_socket"
