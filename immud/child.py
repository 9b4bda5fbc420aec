"""Calls that may block, or must enter another namespace, made in a forked child of ours.

A system call on a dying drive can sleep in the kernel for as long as it likes;
here it takes a child with it and not the daemon. The child has one thread, as
setns(2) demands, runs one plain function and hands back one plain value.
"""

import asyncio
import marshal
import os
import select
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from immud import errors
from immud.errors import ImmudError
from immud.run import Exit, Reader

# What a socket takes at once, wherever that is not set to less.
_LONGEST_ORDER = 1 << 17


class ChildTimeout(ImmudError):
    """The kernel did not finish a call in time."""


def _fork() -> tuple[int, int]:
    """(pid, reading end) in the parent, (0, writing end) in the child, deaf to our signals."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    # A signal between fork and reset would be told to the parent through the loop's own socket.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        os.close(reading)
    else:
        os.close(writing)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid, writing if pid == 0 else reading


class _Teller:
    """The child's answer: the first is sent, with all the parent waits for, and no other."""

    def __init__(self, writing: int) -> None:
        self._writing = writing
        self._told = False

    def tell(self, answer: Any) -> None:
        """Send a value, or an exception for the parent to raise."""
        if self._told:
            return
        self._told = True
        data = marshal.dumps(_packed(answer))
        while data:
            data = data[os.write(self._writing, data) :]
        os.close(self._writing)


def _packed(answer: Any) -> tuple[str, Any]:
    match answer:
        case OSError():
            return "errno", (answer.errno or 0, answer.strerror or "", answer.filename or "")
        case ImmudError():
            return "error", (type(answer).__name__, str(answer))
        case Exception():
            return "defect", f"{type(answer).__name__}: {answer}"
    return "value", answer


def _perform(teller: _Teller, function: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
    try:
        teller.tell(function(*arguments))
    except Exception as error:
        teller.tell(error)
    return 0


async def in_child(function: Callable[..., Any], *arguments: Any, timeout: float = 30.0) -> Any:
    """`function(*arguments)` in a child; its value must be one marshal knows.

    OSError and ImmudError arrive as themselves. Raises ChildTimeout after
    `timeout` seconds; then, and when cancelled, the child is killed and, should
    it sleep in the kernel, left to be collected when it wakes up.
    """
    return await _in_child(function, arguments, timeout, early=False)


async def early_from_child(
    function: Callable[..., Any], *arguments: Any, timeout: float = 30.0
) -> Any:
    """The same for a function with something left to do after its answer, which nobody awaits.

    It gets a callable as its first argument: what that is called with, a value or an
    exception, is the answer. Without a call it is what the function returns.
    """
    return await _in_child(function, arguments, timeout, early=True)


async def _in_child(
    function: Callable[..., Any], arguments: tuple[Any, ...], timeout: float, *, early: bool
) -> Any:
    pid, end = _fork()
    if pid == 0:
        status = 1
        try:
            teller = _Teller(end)
            status = _perform(teller, function, (teller.tell, *arguments) if early else arguments)
        finally:
            os._exit(status)
    exited, reader = Exit(pid), Reader(end, limit=1 << 24)
    return await _outcome(exited, reader, function, timeout=timeout, early=early)


async def _outcome(
    exited: Exit, reader: Reader, function: Callable[..., Any], *, timeout: float, early: bool
) -> Any:
    try:
        async with asyncio.timeout(timeout):
            await reader.ended()
            if not early:
                await exited.wait()
    except TimeoutError:
        await exited.end(grace=0)
        raise ChildTimeout(f"The kernel did not finish within {timeout:g} seconds.") from None
    except asyncio.CancelledError:
        await exited.end(grace=0)
        raise
    finally:
        reader.close()
    return _answer(reader.kept, function)


class Standby:
    """A child that is forked and made ready before anybody knows what it is to do.

    `prepare` is called in it at once, and `function` as by `early_from_child` when `perform`
    brings its arguments, which marshal has to know. It ends with this process.
    """

    def __init__(self, prepare: Callable[[], None], function: Callable[..., Any]) -> None:
        self._function = function
        # In packets, for it cannot wait for the end: other children of ours may hold this side.
        orders, self._orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.pidfd_open(os.getpid())
        pid, end = _fork()
        if pid == 0:
            status = 1
            try:
                status = _stand_by(orders, parent, _Teller(end), prepare, function)
            finally:
                os._exit(status)
        orders.close()
        os.close(parent)
        self._exited, self._reader = Exit(pid), Reader(end, limit=1 << 24)

    async def perform(self, *arguments: Any, timeout: float = 30.0) -> Any:
        """As `early_from_child`, once."""
        if not self._order(marshal.dumps(arguments)):
            self._reader.close()
            return await early_from_child(self._function, *arguments, timeout=timeout)
        return await _outcome(
            self._exited, self._reader, self._function, timeout=timeout, early=True
        )

    def dismiss(self) -> None:
        """It was not needed, and ends."""
        self._order(b"")
        self._reader.close()

    def _order(self, data: bytes) -> bool:
        """Whether it is there to hear it, and it is not too long to be told."""
        with self._orders as orders:
            try:
                orders.send(data if len(data) <= _LONGEST_ORDER else b"", socket.MSG_NOSIGNAL)
            except OSError:
                return False
        return len(data) <= _LONGEST_ORDER


def _stand_by(
    orders: socket.socket,
    parent: int,
    teller: _Teller,
    prepare: Callable[[], None],
    function: Callable[..., Any],
) -> int:
    with suppress(Exception):
        # What is amiss is told by who needs it.
        prepare()
    poll = select.poll()
    for fd in (orders.fileno(), parent):
        poll.register(fd, select.POLLIN)
    if parent in (fd for fd, _ in poll.poll()):
        return 0
    with orders:
        data = orders.recv(_LONGEST_ORDER)
    if not data:
        return 0
    return _perform(teller, function, (teller.tell, *marshal.loads(data)))  # noqa: S302 - our own


@asynccontextmanager
async def held(
    function: Callable[..., Any], *arguments: Any, timeout: float = 30.0
) -> AsyncIterator[Any]:
    """As `in_child`, but the child stays, with all it has open, until the block ends.

    It ends with this process, too, however that ends.
    """
    parent = os.pidfd_open(os.getpid())
    pid, end = _fork()
    if pid == 0:
        status = 1
        try:
            status = _perform(_Teller(end), function, arguments)
            poll = select.poll()
            poll.register(parent, select.POLLIN)
            poll.poll()
        finally:
            os._exit(status)
    os.close(parent)
    exited, reader = Exit(pid), Reader(end, limit=1 << 24)
    try:
        try:
            async with asyncio.timeout(timeout):
                await reader.ended()
        except TimeoutError:
            raise ChildTimeout(f"The kernel did not finish within {timeout:g} seconds.") from None
        yield _answer(reader.kept, function)
    finally:
        reader.close()
        await exited.end(grace=0)


def _answer(data: bytes, function: Callable[..., Any]) -> Any:
    kind, value = marshal.loads(data) if data else ("defect", "killed")  # noqa: S302 - our child's
    if kind == "value":
        return value
    if kind == "errno":
        raise OSError(*value)
    if kind == "error":
        raise getattr(errors, value[0], ImmudError)(value[1])
    raise RuntimeError(f"{function.__qualname__} in a child: {value}")
