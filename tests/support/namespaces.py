"""Run a function where it cannot hurt the machine: a child with namespaces of its own.

`namespaced(work)` forks a child with a mount namespace (nothing it mounts or
unmounts reaches the outside) and a process namespace (nothing it starts outlives
it, and /proc/1 is the child itself), runs `work()` in it, and returns what that
returned or raises what it raised, with the child's traceback as a note.
`@in_namespace` does that to a whole test. `forked(work)` is the same without
namespaces, for something that is to be killed half-way. `enter_root(path)` makes
the mount at `path` the child's /, with the machine's own tree out of reach:

    @in_namespace
    def test_a_mount(tmp_path):
        kernel.mount("tmpfs", str(tmp_path), "tmpfs", 0)
        enter_root(str(tmp_path))
        ...
"""

import ctypes
import functools
import os
import pickle
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar, cast

from immud.early import kernel

P = ParamSpec("P")
T = TypeVar("T")
Frames = list[tuple[str, int | None, str]]

CLONE_NEWPID = 0x20000000
PR_SET_PDEATHSIG = 1
TIMEOUT = 120.0

_libc = ctypes.CDLL(None, use_errno=True)


class ChildError(Exception):
    """The child raised something that cannot be pickled; the text is what it said."""


class ChildKilled(Exception):
    """The child ended without an answer."""

    def __init__(self, status: int) -> None:
        self.signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        how = signal.Signals(self.signal).name if self.signal else f"status {status}"
        super().__init__(f"the child ended by {how}")


def forked(work: Callable[[], T], *, timeout: float = TIMEOUT) -> T:
    """What `work()` gives in a forked child. Raises ChildKilled where it ends without an answer.

    `timeout` is in seconds; a child that takes longer is killed.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _answer(work, writer)
    os.close(writer)
    return cast(T, _collect(pid, reader, timeout))


def namespaced(work: Callable[[], T], *, timeout: float = TIMEOUT) -> T:
    """What `work()` gives in a child with a mount and a process namespace of its own."""
    outside = os.readlink("/proc/self/ns/mnt")

    def inside() -> T:
        kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("proc", "/proc", "proc", 0)
        assert_private(outside)
        return work()

    def between() -> T:
        # A process namespace begins with the next child, which is its process 1.
        kernel.unshare(kernel.CLONE_NEWNS | CLONE_NEWPID)
        return forked(inside, timeout=timeout)

    return forked(between, timeout=timeout)


def in_namespace(test: Callable[P, None]) -> Callable[P, None]:
    """Decorate a test so that all of it runs in a namespace of its own."""

    @functools.wraps(test)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        namespaced(lambda: test(*args, **kwargs))

    return wrapped


def assert_private(outside: str) -> None:
    """Assert that the mount namespace is not `outside`, and that nothing propagates out of it."""
    assert os.readlink("/proc/self/ns/mnt") != outside, "still in the machine's own namespace"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        shared = [line for line in table if " shared:" in line or " master:" in line]
    assert not shared, f"mounts still propagate: {shared}"


def enter_root(path: str) -> None:
    """Make the mount at `path` the root directory and let go of the machine's tree.

    /proc is mounted in it where there is a directory for it. What Python has not
    imported by now it cannot import any more.
    """
    os.chdir(path)
    if _libc.pivot_root(b".", b"."):
        raise OSError(ctypes.get_errno(), "pivot_root", path)
    kernel.umount2(".", kernel.MNT_DETACH)
    os.chdir("/")
    if os.path.isdir("/proc"):
        kernel.mount("proc", "/proc", "proc", 0)


def _answer(work: Callable[[], T], writer: int) -> NoReturn:
    """In the child: run `work`, write its outcome, and never return into the caller's stack."""
    try:
        try:
            message = pickle.dumps((True, work(), []))
        except BaseException as error:  # whatever it is, the parent has to raise it
            message = _pickled(error)
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(len(message).to_bytes(8, "big") + message)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(0)


def _pickled(error: BaseException) -> bytes:
    # Frames without their source lines: the child may not see the files any more.
    frames: Frames = [
        (frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    try:
        message = pickle.dumps((False, error, frames))
        pickle.loads(message)  # noqa: S301 - an error may pickle and still not come back
    except Exception:
        text = "".join(traceback.format_exception_only(error))
        message = pickle.dumps((False, ChildError(text), frames))
    return message


def _collect(pid: int, reader: int, timeout: float) -> object:
    """In the parent: wait for the outcome in `reader`, end `pid`, and return or raise."""
    limit = time.monotonic() + timeout
    data = b""
    process = os.pidfd_open(pid)
    try:
        while len(data) < 8 or len(data) < 8 + int.from_bytes(data[:8], "big"):
            ready, _, _ = select.select([reader, process], [], [], max(0, limit - time.monotonic()))
            if not ready:
                signal.pidfd_send_signal(process, signal.SIGKILL)
                raise TimeoutError(f"the child took longer than {timeout} s and was killed")
            # A grandchild may hold the pipe open: the process's end counts once it is empty.
            chunk = os.read(reader, 65536) if reader in ready else b""
            if not chunk:
                break
            data += chunk
    finally:
        os.close(reader)
        os.close(process)
        _, status = os.waitpid(pid, 0)
    if len(data) < 8:
        raise ChildKilled(status)
    good, value, frames = pickle.loads(data[8:])  # noqa: S301 - written by our own child
    if good:
        return value
    where = traceback.StackSummary.from_list(
        [traceback.FrameSummary(name, line, function) for name, line, function in frames]
    )
    value.add_note("in the child:\n" + "".join(where.format()))
    raise value
