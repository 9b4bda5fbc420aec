"""Reading what a stranger's file descriptor holds, without being held up by it.

Reading, or even fstat, on a file of a FUSE file system waits for as long as its
owner pleases; a pipe that somebody else reads too can run dry between being ready
and being read. So pipes, sockets and memfds are accepted, recognised without
asking any file system, and read through descriptions of our own.
"""

import asyncio
import fcntl
import os
import socket

from immud.bus.adapter import BusError
from immud.bus.standard import INVALID_ARGS

SECRET_MAX = 8 << 20
"""Bytes; what cryptsetup accepts for a key file (--keyfile-size-max)."""
TIMEOUT = 10.0
"""Seconds until whoever writes has to be done."""


async def read_secret(fd: int) -> bytes:
    """Everything up to the end, as it is: no newline is stripped. Closes `fd`.

    Raises BusError where it is too long, too late or no such descriptor.
    """
    try:
        kind = os.readlink(f"/proc/self/fd/{fd}")
        if _is_memory(fd):
            data = os.pread(fd, SECRET_MAX + 1, 0)
        elif kind.startswith("pipe:["):
            # Opened again, so that O_NONBLOCK is set for us and not for the sender.
            data = await _read(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK))
        elif kind.startswith("socket:["):
            data = await _read(os.dup(fd), flags=socket.MSG_DONTWAIT)
        else:
            raise BusError(INVALID_ARGS, "passphrase-fd has to be a pipe, a socket or a memfd.")
    except TimeoutError:
        raise BusError(
            INVALID_ARGS, f"passphrase-fd was not closed within {TIMEOUT:.0f} seconds."
        ) from None
    except OSError as error:
        raise BusError(INVALID_ARGS, f"passphrase-fd cannot be read: {error.strerror}.") from None
    finally:
        os.close(fd)
    if len(data) > SECRET_MAX:
        raise BusError(INVALID_ARGS, f"passphrase-fd holds more than {SECRET_MAX} bytes.")
    return data


def _is_memory(fd: int) -> bool:
    """Whether this is a memfd (or a file of a tmpfs, which is as good)."""
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True


async def _read(fd: int, flags: int = 0) -> bytes:
    """Read to the end of a descriptor, which is closed."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    data = bytearray()
    sock: socket.socket | None = None

    def readable() -> None:
        if ended.done():
            return
        try:
            part = sock.recv(65536, flags) if sock else os.read(fd, 65536)
        except BlockingIOError:
            return
        except OSError as error:
            ended.set_exception(error)
            return
        data.extend(part)
        if not part or len(data) > SECRET_MAX:
            ended.set_result(None)

    try:
        if flags:
            # Raises for what has no name, such as AF_XDP and AF_ALG: getsockname(2) is called.
            sock = socket.socket(fileno=fd)
        loop.add_reader(fd, readable)
        async with asyncio.timeout(TIMEOUT):
            await ended
    finally:
        loop.remove_reader(fd)
        if sock:
            sock.close()
        else:
            os.close(fd)
    return bytes(data)
