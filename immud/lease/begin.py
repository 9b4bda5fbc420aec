"""Becoming a process with a lease: what `immud unlock` does before it becomes the command."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal brings enum
import os
import time

from immud.early import process
from immud.lease import journal, record, wire

TYPE_CHECKING = False  # see immud.errors
if TYPE_CHECKING:
    from typing import NoReturn

STOP_SECONDS = 5
"""From SIGTERM to SIGKILL for what is left when a lease ends, and for each command after that."""
SLICE = "system.slice"
NO_LOGIN = 0xFFFFFFFF  # /proc/PID/loginuid of who never logged in


def who() -> int:
    """Who asks: the user who logged in, whatever they came through since."""
    try:
        with open("/proc/self/loginuid", encoding="ascii") as file:
            login = int(file.read())
    except (OSError, ValueError):
        login = NO_LOGIN
    if login != NO_LOGIN:
        return login
    # Who is root already can put anything there, and anywhere else.
    given = os.environ.get("PKEXEC_UID") or os.environ.get("SUDO_UID") or ""
    return int(given) if given.isdecimal() else os.getuid()


def begin(
    command: tuple[str, ...],
    *,
    reason: str = "",
    seconds: float = 0,
    pid: int = 0,
    uid: int | None = None,
) -> record.Record:
    """Give this process a lease, on record as one for `command`.

    It ends with the process `pid` (0: this one), or after `seconds` (0: no limit). Raises
    Failed; this process is then good for nothing but to end.
    """
    lease = record.Record(
        id=record.new_id(),
        who=who() if uid is None else uid,
        why=reason,
        since=_now(),
        began=running(),
        command=command,
        pid=pid or os.getpid(),
    )
    lease.unit = f"immud-lease-{lease.id}.service"
    lease.until = lease.since + int(seconds * 1e6) if seconds else 0
    legacy = process.is_legacy()
    try:
        watched = os.pidfd_open(lease.pid)
        reading, line = os.pipe2(os.O_CLOEXEC)
        body = (lease.unit, "fail", properties(seconds, lease.id), ())
        call = wire.Call("StartTransientUnit", "ssa(sv)a(sa(sv))", body, (reading,))
        os.close(reading)
        # PID 1 is at work; what is left to import takes a tenth of its time.
        from immud.lease import namespace  # noqa: PLC0415

        lease.trial = namespace.is_image()
        lease.mnt_ns = namespace.leave(legacy)
        lease.watcher = watch(watched, line)
        call.started(lease.unit)
        join(lease.unit, lease.watcher, os.getpid())
        # On record before anything is writable, so that nobody takes it for tampering.
        record.write(lease)
        namespace.loosen(f"{record.DIRECTORY}/{lease.id}", legacy)
    except wire.Refused as error:
        raise wire.Failed(f"systemd refused to start {lease.unit}: {error}") from None
    except OSError as error:
        raise wire.Failed(f"no lease could be made: {error}") from None
    _announce(lease)
    return lease


def become(program: str, command: list[str]) -> NoReturn:
    """Execute the command. Raises OSError.

    Python ignores two signals, and what is ignored survives exec: a command would not end
    with who reads its output. What whoever asks ignores, as nohup(1) does, stays so.
    """
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    os.execv(program, command)


def locked() -> tuple[str, ...]:
    """Which of / and /usr cannot be written to, as this process sees them."""
    return tuple(path for path in ("/", "/usr") if os.statvfs(path).f_flag & os.ST_RDONLY)


def running() -> int:
    """CLOCK_BOOTTIME in microseconds: how long is not told by a clock that may be set."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", 7)) // 1000


def _now() -> int:
    # The clock the kernel stamps files with: a finer one would be ahead of it.
    return time.clock_gettime_ns(getattr(time, "CLOCK_REALTIME_COARSE", 5)) // 1000


def watch(pidfd: int, line: int) -> int:
    """Leave a process here that keeps `line` open until that of `pidfd` ends; its id.

    It is nobody's child, or a command that waits for all of its children would wait for it,
    and it for the command.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            if os.fork() == 0:
                os.setsid()  # the terminal's signals are not for it
                os.write(writing, str(os.getpid()).encode())
                _wait(pidfd, line)
        finally:
            os._exit(0)
    os.close(writing)
    os.close(line)
    os.close(pidfd)
    os.waitpid(child, 0)
    pid = os.read(reading, 32)
    os.close(reading)
    return int(pid)


def _wait(pidfd: int, line: int) -> None:
    import select  # noqa: PLC0415 - only here

    # Nothing of the caller's is kept: not its pipes, nor its directory.
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    low, high = sorted((pidfd, line))
    for begin, end in ((3, low), (low + 1, high), (high + 1, os.sysconf("SC_OPEN_MAX"))):
        os.closerange(begin, end)
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    waiting.poll()


def properties(seconds: float, id: str) -> list[tuple[str, tuple[str, object]]]:
    """The service, as systemd.service(5) has it. Everybody can see it: no command is in it."""

    def run(*argv: str, may_fail: bool = False) -> tuple[str, list[str], bool]:
        return argv[0], list(argv), may_fail

    hold = run("/usr/lib/immud/lease-hold")
    end = run(*process.command("lease-end", id), may_fail=True)
    # Should the interpreter be what the command has broken.
    tidy = run("/bin/rm", "-rf", f"{record.DIRECTORY}/{id}", may_fail=True)
    return [
        ("Description", ("s", f"Lease {id}: / and /usr writable for one command")),
        ("Documentation", ("as", ["man:immud(1)"])),
        # Not behind basic.target, so that a lease can be had early in the boot too.
        ("DefaultDependencies", ("b", False)),
        ("Conflicts", ("as", ["shutdown.target"])),
        ("Before", ("as", ["shutdown.target"])),
        ("CollectMode", ("s", "inactive-or-failed")),
        ("Type", ("s", "simple")),
        ("Slice", ("s", SLICE)),
        ("ExecStart", ("a(sasb)", [hold])),
        ("ExecStopPost", ("a(sasb)", [end, tidy])),
        ("StandardInputFileDescriptor", ("h", 0)),
        # Processes that come from elsewhere may only join a delegated control group.
        ("Delegate", ("b", True)),
        ("KillMode", ("s", "control-group")),
        ("SendSIGHUP", ("b", True)),  # an interactive shell ignores SIGTERM
        ("TimeoutStopUSec", ("t", STOP_SECONDS * 10**6)),
        *([("RuntimeMaxUSec", ("t", int(seconds * 1e6)))] if seconds else []),
    ]


def join(unit: str, *pids: int) -> None:
    """Move these processes into the control group of a service that has started."""
    with open("/proc/1/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        group = next((line[3:].rstrip("\n") for line in file if line.startswith("0::")), "")
    if not group:
        raise wire.Failed("a lease needs the unified control group hierarchy (cgroup v2)")
    above = "/sys/fs/cgroup" + group.removesuffix("/init.scope").rstrip("/")
    for pid in pids:
        with open(f"{above}/{SLICE}/{unit}/cgroup.procs", "w", encoding="ascii") as procs:
            procs.write(str(pid))


def _announce(lease: record.Record) -> None:
    command = journal.shown(lease.command)
    what = "A trial lease on /usr" if lease.trial else "A lease on / and /usr"
    why = f" ({lease.why})" if lease.why else ""
    whom = f"uid {lease.who}" if lease.who else "root"  # pwd takes longer to import
    journal.tell(f"{what} was given to {whom}: {command}{why}", journal.BEGAN, fields(lease))


def fields(lease: record.Record) -> dict[str, str]:
    """What the journal has of a lease beside the sentence."""
    return {
        "IMMUD_LEASE": lease.id,
        "IMMUD_UID": str(lease.who),
        "IMMUD_REASON": lease.why,
        "IMMUD_COMMAND": journal.shown(lease.command),
        "IMMUD_UNIT": lease.unit,
        "IMMUD_TRIAL": "yes" if lease.trial else "no",
    }
