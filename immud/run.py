"""The one gate for subprocesses: no shell, one locale, always a time limit, no child left behind.

posix_spawn(3) rather than asyncio's own: it does not copy our page tables, and
a pidfd in the loop replaces the thread a child that Python 3.11 would start.
"""

import asyncio
import errno
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from immud.errors import ImmudError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT: Mapping[str, str] = {"LC_ALL": "C", "PATH": PATH, "HOME": "/", "TERM": "dumb"}

# A pipe takes this much without anybody reading it, and no key file is longer.
STDIN_LIMIT = 65536
# What of a child's output is kept: enough for a sentence about its failure.
OUTPUT_LIMIT = 65536
# From SIGTERM to SIGKILL, seconds: time to remove a question from the ask-password directory.
GRACE = 0.2


class CommandFailed(ImmudError):
    """A program ended with a status nobody allowed for. `code` is -N for signal N."""

    def __init__(self, argv: tuple[str, ...], code: int, stderr: str) -> None:
        program = os.path.basename(argv[0])
        how = f"status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        last = stderr.strip().rsplit("\n", 1)[-1].strip()
        super().__init__(f"{program} ended with {how}" + (f": {last}" if last else "."))
        self.argv = argv
        self.code = code
        self.stderr = stderr


class CommandTimeout(ImmudError):
    """A program took longer than it may, and was ended."""

    def __init__(self, argv: tuple[str, ...], seconds: float) -> None:
        super().__init__(f"{os.path.basename(argv[0])} did not end within {seconds:g} seconds.")
        self.argv = argv


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended, and the beginning of what it said."""

    code: int
    stdout: bytes
    stderr: str


class Exit:
    """The end of one child of ours, noticed through its pidfd and collected exactly once."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self._fd = os.pidfd_open(pid)
        self._code: asyncio.Future[int] = self._loop.create_future()
        self._ending = False
        self._loop.add_reader(self._fd, self._collect)

    def _collect(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        if self._ending:
            # What it started and left behind; until it is collected, the id is not another's.
            self._signal(signal.SIGKILL)
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED)
        assert ended is not None
        killed = ended.si_code != os.CLD_EXITED
        self._code.set_result(-ended.si_status if killed else ended.si_status)

    async def wait(self) -> int:
        """The exit status, -N for signal N. A cancelled waiter leaves the child to the loop."""
        return await asyncio.shield(self._code)

    async def end(self, grace: float = GRACE) -> None:
        """End the child's process group: politely for `grace` seconds, then for certain.

        A child that sleeps in the kernel even then is collected whenever it wakes up.
        """
        self._ending = True
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 1.0)):
            if not self._code.done():
                self._signal(number)
                await asyncio.wait((self._code,), timeout=seconds)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class Reader:
    """Collects what comes out of a pipe, up to `limit` bytes, until the last writer has gone.

    `heard` is told of every piece as it comes.
    """

    def __init__(
        self,
        fd: int,
        limit: int = OUTPUT_LIMIT,
        heard: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._limit = limit
        self._heard = heard
        self._kept = bytearray()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, OUTPUT_LIMIT)
        except BlockingIOError:
            return
        self._kept += data[: self._limit - len(self._kept)]
        self._heard(data)
        if not data:
            self._loop.remove_reader(self._fd)
            self._ended.set_result(None)

    @property
    def kept(self) -> bytes:
        return bytes(self._kept)

    async def ended(self) -> None:
        """Wait for the last writer to go."""
        await asyncio.shield(self._ended)

    async def rest(self) -> bytes:
        """All of it, once the child has ended; a grandchild that keeps the pipe is not awaited."""
        await asyncio.wait((self._ended,), timeout=0.1)
        return self.kept

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


def _filled(data: bytes) -> int:
    """The reading end of a pipe that holds `data` and then ends: what was in it is in no file."""
    if len(data) > STDIN_LIMIT:
        raise ValueError(f"more than {STDIN_LIMIT} bytes for a program's standard input")
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.write(writing, data)
    os.close(writing)
    return reading


def _spawn(argv: tuple[str, ...], stdin: int, out: int, err: int, extra: Mapping[str, str]) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, out, 1)]
    actions.append((os.POSIX_SPAWN_DUP2, err, 2))
    return os.posix_spawnp(
        argv[0],
        argv,
        {**ENVIRONMENT, **extra},
        file_actions=actions,
        setpgroup=0,
        setsigmask=(),
        # SIGPIPE is ignored by Python, and an ignored signal survives exec.
        setsigdef=set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP},
    )


async def run(
    *argv: str,
    stdin: bytes = b"",
    timeout: float | None = 60.0,
    allowed: tuple[int, ...] = (0,),
    environment: Mapping[str, str] | None = None,
    heard: Callable[[bytes], None] = lambda _: None,
    limit: int = OUTPUT_LIMIT,
) -> Result:
    """Run a program to its end, in a process group of its own.

    `stdin` is for secrets: it is never in a file, on a command line or in a log. `heard` is told
    of what it writes to its standard output as it does, in pieces; `limit` bytes of it are kept.
    Raises CommandFailed for a status not in `allowed`, CommandTimeout after
    `timeout` seconds (None where a person is asked), and CancelledError with the whole group ended.
    """
    ends: list[int] = []
    try:
        ends.append(_filled(stdin))
        ends += (*os.pipe2(os.O_CLOEXEC), *os.pipe2(os.O_CLOEXEC))
        reading, out, reading_err, err = ends[1:]
        try:
            pid = _spawn(argv, ends[0], out, err, environment or {})
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.ENOEXEC):
                raise
            raise CommandFailed(argv, 127, f"{argv[0]}: {error.strerror}") from error
    except BaseException:
        for fd in ends:
            os.close(fd)
        raise
    for fd in (ends[0], out, err):
        os.close(fd)
    exited, stdout, stderr = Exit(pid), Reader(reading, limit, heard), Reader(reading_err)
    try:
        async with asyncio.timeout(timeout):
            code = await exited.wait()
        result = Result(code, await stdout.rest(), (await stderr.rest()).decode(errors="replace"))
    except TimeoutError:
        await exited.end()
        raise CommandTimeout(argv, timeout or 0) from None
    except asyncio.CancelledError:
        await exited.end()
        raise
    finally:
        stdout.close()
        stderr.close()
    if code not in allowed:
        raise CommandFailed(argv, code, result.stderr)
    return result
