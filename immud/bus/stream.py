"""Whole D-Bus messages, with the file descriptors that came along, over one socket.

dbus-next has a stream of its own. It never closes its socket, reads on for as long
as somebody sends (so that one busy stranger keeps the loop from everything else),
and ends the connection over any message it does not understand. This one
frames messages itself and takes a few at a time.
"""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

HEADER = 16
"""Bytes that tell how long a message is, and what (D-Bus specification, "Message Format")."""
REPLIES = (2, 3)
"""Types of messages that come because we asked: METHOD_RETURN and ERROR."""
MESSAGE_MAX = 4 << 20
"""Longer messages are skipped: the specification allows 128 MiB, nothing of ours needs it."""
UNASKED_MAX = 64 << 10
"""What a service takes of calls and signals, which anybody may send: making objects of the 4 MiB
above would keep the loop for seconds."""
UNSENT_MAX = 16 << 20
"""A bus that leaves this many bytes unread is as good as gone."""
AT_ONCE = 16
"""Messages handled before the loop may look at anything else."""
READ_AT_ONCE = 64 << 10
"""Bytes read before it may."""
DESCRIPTORS_MAX = 253
"""SCM_MAX_FD of the kernel."""

Received = Callable[[bytes, list[int]], None]


class Stream:
    """`received` gets each message and owns its descriptors; `lost` is called once.

    Messages longer than MESSAGE_MAX are skipped, and but for replies those longer than
    `unasked_max`.
    """

    def __init__(
        self,
        sock: socket.socket,
        received: Received,
        lost: Callable[[Exception | None], None],
        unasked_max: int = MESSAGE_MAX,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._received, self._lost = received, lost
        self._unasked_max = unasked_max
        self._left = 0
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._skip = 0
        self._unsent: deque[tuple[memoryview, list[int]]] = deque()
        self._unsent_bytes = 0
        self._loop.add_reader(sock, self._readable)

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    def close(self, error: Exception | None = None) -> None:
        """Close the socket and every descriptor that nobody has taken over."""
        if self.closed:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        close_all(self._fds)
        for _, fds in self._unsent:
            close_all(fds)
        self._unsent.clear()
        self._lost(error)

    # Reading

    def _readable(self) -> None:
        self._left = READ_AT_ONCE
        try:
            for _ in range(AT_ONCE):
                if not self.closed:
                    self._read_message()
        except BlockingIOError:
            return
        except (OSError, EOFError, ValueError) as error:
            self.close(error)

    def _read_message(self) -> None:
        """One message. BlockingIOError where the rest of it comes later."""
        while self._skip:
            self._skip -= len(self._receive(self._skip))
            close_all(self._fds)
        # Never beyond the end of a message: descriptors arrive with its first byte, and
        # reading into the next one would give it the descriptors of this one.
        self._fill(HEADER)
        size = message_size(self._buffer)
        if size > (MESSAGE_MAX if self._buffer[1] in REPLIES else self._unasked_max):
            self._skip = size - len(self._buffer)
            self._buffer.clear()
            return
        self._fill(size)
        data, fds = bytes(self._buffer), self._fds
        self._buffer, self._fds = bytearray(), []
        self._received(data, fds)

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            self._buffer += self._receive(size - len(self._buffer))

    def _receive(self, size: int) -> bytes:
        if not self._left:
            # The socket stays readable, so the loop comes back when it has been elsewhere.
            raise BlockingIOError
        data, ancillary, _, _ = self._socket.recvmsg(
            min(size, self._left), socket.CMSG_SPACE(DESCRIPTORS_MAX * 4), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, rights in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
                self._fds += fds
        self._left -= len(data)
        if not data:
            raise EOFError("The bus closed the connection.")
        return data

    # Writing

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send now or, where the socket is full, later. The descriptors stay the caller's."""
        if self.closed:
            raise ConnectionResetError("The connection to the bus is closed.")
        self._unsent.append((memoryview(data), [os.dup(fd) for fd in fds]))
        self._unsent_bytes += len(data)
        if self._unsent_bytes > UNSENT_MAX:
            self.close(ConnectionResetError("The bus does not read what it is sent."))
        elif len(self._unsent) == 1:
            self._writable()

    def _writable(self) -> None:
        try:
            while self._unsent:
                self._write_some()
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._writable)
        except OSError as error:
            # The caller is in the middle of something; it hears of the end afterwards.
            self._loop.call_soon(self.close, error)
        else:
            self._loop.remove_writer(self._socket)

    def _write_some(self) -> None:
        data, fds = self._unsent[0]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)
        self._unsent_bytes -= sent
        close_all(fds)
        if sent == len(data):
            self._unsent.popleft()
        else:
            self._unsent[0] = (data[sent:], [])


def message_size(header: bytes | bytearray) -> int:
    """The length of the message that begins so. Raises ValueError where none can."""
    if header[0] not in b"lB":
        raise ValueError("The bus sent something that is no D-Bus message.")
    order: Literal["little", "big"] = "little" if header[0] == ord("l") else "big"
    body = int.from_bytes(header[4:8], order)
    fields = int.from_bytes(header[12:16], order)
    return HEADER + (fields + 7) // 8 * 8 + body


def close_all(fds: list[int]) -> None:
    """Close and forget them."""
    while fds:
        os.close(fds.pop())


def parse_address(address: str) -> str:
    """`unix:path=/run/dbus/system_bus_socket` or a bare path as an AF_UNIX address.

    Raises ValueError for any other transport.
    """
    if address.startswith("/"):
        return address
    for alternative in address.split(";"):
        transport, _, rest = alternative.partition(":")
        options = dict(part.split("=", 1) for part in rest.split(",") if "=" in part)
        if transport == "unix" and "path" in options:
            return options["path"]
        if transport == "unix" and "abstract" in options:
            return "\0" + options["abstract"]
    raise ValueError(f"{address!r} is no bus address with a path; one is unix:path=/some/socket.")


async def connect(address: str) -> socket.socket:
    """A socket on which the bus has accepted us and agreed to pass descriptors.

    Raises OSError, or PermissionError where the bus turns us away.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await loop.sock_connect(sock, parse_address(address))
        # All at once, as sd-bus does it: the user id is what the kernel says it is, so
        # nothing in the answers could change what we send.
        await loop.sock_sendall(sock, b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n")
        answer = b""
        while answer.count(b"\r\n") < 3:
            # Never beyond the last line: PID 1, which is no bus, tells what happens from then on.
            data = await loop.sock_recv(sock, 1)
            if not data or len(answer) > 4096:
                raise ConnectionResetError("The bus closed the connection during authentication.")
            answer += data
            if b"REJECTED" in answer or b"ERROR" in answer:
                raise PermissionError(f"The bus turned us away: {answer.decode(errors='replace')}")
        lines = answer.split(b"\r\n")
        if not lines[1].startswith(b"OK ") or lines[2] != b"AGREE_UNIX_FD":
            raise PermissionError(f"Unexpected answer: {answer.decode(errors='replace')}")
    except BaseException:
        sock.close()
        raise
    return sock
