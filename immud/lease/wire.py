"""A method call to PID 1 over its private socket, in the D-Bus marshalling.

pystemd would bring lxml, and dbus-next asyncio: each takes longer to import than a
lease may add to a command. The system bus may be down, or the machine still booting;
this socket is there as soon as PID 1 is. Rules: the D-Bus specification.
"""

import _socket
import os
import sys

SOCKET = "/run/systemd/private"
ANSWER_SECONDS = 90
"""DefaultTimeoutStartSec; PID 1 may be reading all its units again."""
_MANAGER = "org.freedesktop.systemd1.Manager"
_PATH = "/org/freedesktop/systemd1"
_CALL, _ERROR, _SIGNAL = 1, 3, 4
_MESSAGE_MAX = 1 << 20


class Failed(Exception):
    """There is no lease, and nothing was run; the text says why and what to do."""


class Refused(Exception):
    """PID 1 answered with an error; the text is its own."""


class _Out:
    """Bytes under construction, aligned from their beginning."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, size: int) -> None:
        self.data += bytes(-len(self.data) % size)

    def number(self, size: int, value: int) -> None:
        self.align(size)
        self.data += value.to_bytes(size, "little")

    def put(self, signature: str, value: object) -> None:
        """One value of a single complete type; of structs and arrays, any sequence."""
        kind = signature[0]
        if kind in "ubh":
            assert isinstance(value, int)
            self.number(4, value)
        elif kind in "xt":
            assert isinstance(value, int)
            self.number(8, value)
        elif kind in "so":
            assert isinstance(value, str)
            data = os.fsencode(value)
            self.number(4, len(data))
            self.data += data + b"\0"
        elif kind == "g":
            assert isinstance(value, str)
            self.data += bytes((len(value),)) + value.encode() + b"\0"
        elif kind == "v":
            assert isinstance(value, tuple)
            self.put("g", value[0])
            self.put(value[0], value[1])
        elif kind == "(":
            assert isinstance(value, tuple)
            self.align(8)
            for part, inner in zip(split(signature[1:-1]), value, strict=True):
                self.put(part, inner)
        elif kind == "a":
            assert isinstance(value, tuple | list)
            self._array(signature[1:], value)
        else:
            raise ValueError(signature)

    def _array(self, element: str, values: "tuple[object, ...] | list[object]") -> None:
        self.number(4, 0)
        at = len(self.data)
        self.align(8 if element[0] in "(xt" else 4 if element[0] in "ubhsoa" else 1)
        begin = len(self.data)
        for value in values:
            self.put(element, value)
        self.data[at - 4 : at] = (len(self.data) - begin).to_bytes(4, "little")


def split(signature: str) -> list[str]:
    """The single complete types of a signature."""
    types, at, begin, depth = [], 0, 0, 0
    while at < len(signature):
        character = signature[at]
        depth += {"(": 1, ")": -1}.get(character, 0)
        at += 1
        if depth == 0 and character != "a":
            types.append(signature[begin:at])
            begin = at
    return types


def message(member: str, signature: str, body: tuple[object, ...], fds: int = 0) -> bytes:
    """A call of PID 1's manager that expects a reply; its serial number is 1."""
    inside = _Out()
    for part, value in zip(split(signature), body, strict=True):
        inside.put(part, value)
    fields: list[tuple[int, str, object]] = [
        (1, "o", _PATH),
        (2, "s", _MANAGER),
        (3, "s", member),
        (8, "g", signature),
    ]
    if fds:
        fields.append((9, "u", fds))
    out = _Out()
    out.data += bytes((ord("l"), _CALL, 0, 1))
    out.number(4, len(inside.data))
    out.number(4, 1)
    out.number(4, 0)
    for code, kind, value in fields:
        out.align(8)
        out.data.append(code)
        out.put("v", (kind, value))
    out.data[12:16] = (len(out.data) - 16).to_bytes(4, "little")
    out.align(8)
    return bytes(out.data + inside.data)


class Call:
    """A call of PID 1's manager, on its way: `started` waits for what comes of it.

    Raises OSError where nobody listens.
    """

    def __init__(
        self,
        member: str,
        signature: str,
        body: tuple[object, ...],
        fds: tuple[int, ...] = (),
        path: str = SOCKET,
    ) -> None:
        self._data = b""
        self._connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            self._send(path, message(member, signature, body, len(fds)), fds)
        except BaseException:
            self._connection.close()
            raise

    def _send(self, path: str, data: bytes, fds: tuple[int, ...]) -> None:
        connection = self._connection
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(path)
        except OSError as error:
            text = f"{error.strerror}; is systemd running here?"
            raise OSError(error.errno, text, path) from None
        uid = str(os.geteuid()).encode().hex().encode()
        connection.sendall(b"\0AUTH EXTERNAL " + uid + b"\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n")
        # Descriptors that arrive before it has read BEGIN would end the connection.
        while self._data.count(b"\n") < 2:
            self._data += _more(connection, 4096)
        # PID 1 tells us everything from now on, the first of it maybe along with its answer.
        guid, agreed, self._data = self._data.split(b"\n", 2)
        if not guid.startswith(b"OK ") or agreed.rstrip() != b"AGREE_UNIX_FD":
            raise OSError(f"{path}: PID 1 does not let us in")
        rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        sent = connection.sendmsg(
            [data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if fds else []
        )
        if sent < len(data):
            connection.sendall(data[sent:])

    def started(self, unit: str) -> None:
        """Wait until PID 1 has said yes, and then until the unit's job has ended.

        Raises Refused, or OSError where it says nothing. JobRemoved comes without asking over
        this socket, since whoever is on it is a friend.
        """
        answered = False
        try:
            while True:
                kind, head, body = self._next()
                if kind == _ERROR:
                    text = body[4:].rstrip(b"\0").decode(errors="replace")
                    raise Refused(text or "it gave no reason")
                if kind != _SIGNAL:
                    answered = True
                elif answered and b"JobRemoved\0" in head and unit.encode() + b"\0" in body:
                    if not body.endswith(b"done\0"):
                        raise Refused(f"its job ended otherwise; see: journalctl -u {unit}")
                    return
        finally:
            self._connection.close()

    def _next(self) -> tuple[int, bytes, bytes]:
        """The type, header and body of the next message."""
        self._read(16)
        order = "little" if self._data[:1] == b"l" else "big"
        body = int.from_bytes(self._data[4:8], order)  # type: ignore[arg-type]
        fields = int.from_bytes(self._data[12:16], order)  # type: ignore[arg-type]
        begin = 16 + fields + -fields % 8
        if begin + body > _MESSAGE_MAX:
            raise OSError("PID 1 sent something that is no answer")
        self._read(begin + body)
        data, self._data = self._data[: begin + body], self._data[begin + body :]
        return data[1], data[:begin], data[begin:]

    def _read(self, size: int) -> None:
        while len(self._data) < size:
            self._data += _more(self._connection, 65536)


def _more(connection: _socket.socket, size: int) -> bytes:
    data = connection.recv(size)
    if not data:
        raise OSError("PID 1 closed the connection")
    return data
