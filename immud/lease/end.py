"""What is done when a lease has ended: off the record, and into the journal."""

import _signal  # type: ignore[import-not-found]  # signal brings enum
import os
import select
import sys
import time

from immud.lease import journal, leftover, record
from immud.lease.begin import STOP_SECONDS, fields, running

SECONDS = STOP_SECONDS - 1.0
"""For all of it: PID 1 kills what takes STOP_SECONDS, and the journal would hear of nothing."""
SET = 2_000_000
"""By how much two clocks may differ, microseconds, before one was set."""
FILES_MAX = 5000
"""Names in the journal; the number is told in any case. A kernel brings as many files."""


def end(id: str) -> None:
    """Take the lease off the record and tell the journal: PID 1 runs this whatever happened.

    Nothing runs in the lease's control group any more.
    """
    until = time.monotonic() + SECONDS
    lease = record.read(id)
    try:
        # On record as long as something may write, so that nobody takes it for tampering.
        killed = leftover.kill(lease.mnt_ns, id) if lease else []
    finally:
        record.remove(id)
    if lease is None:
        return
    now, ran = time.time_ns() // 1000, running()
    lasted = (ran - lease.began if lease.began else now - lease.since) / 1e6
    told = fields(lease)
    result = os.environ.get("SERVICE_RESULT", "")
    if lease.trial:
        text = "nothing it wrote to /usr was kept"
    else:
        files, count, complete = changed(spans(lease, now, ran), until)
        told["IMMUD_CHANGED"] = str(count)
        told["IMMUD_FILES"] = "\n".join(files)
        told["IMMUD_COMPLETE"] = "yes" if complete else "no"
        text = (
            f"{count} files and directories under /usr changed"
            if count
            else "no file under /usr changed"
        )
        if not complete:
            text += ", in the part of it that could be looked through in time"
    if result == "timeout":
        text = f"it was ended when its time was up; {text}"
    told["IMMUD_KILLED"] = str(len(killed))
    if killed:
        names = ", ".join(sorted(set(killed)))
        text += f"; processes that had left its control group were killed: {len(killed)} ({names})"
    told["IMMUD_RESULT"] = result
    journal.tell(f"A lease on / and /usr ended after {lasted:.0f} s: {text}.", journal.ENDED, told)


def spans(lease: record.Record, now: int, ran: int) -> tuple[tuple[int, int], ...]:
    """What the clock showed while the lease lasted (CLOCK_REALTIME, microseconds).

    It may have been set meanwhile: from 1970 to today once there is a network, or back. What
    was changed before that is after the beginning, by no more than the lease took, and
    what was changed after it is as little before `now`. `ran` is CLOCK_BOOTTIME now.
    """
    took = ran - lease.began
    if not lease.began or abs(now - took - lease.since) < SET:
        return ((lease.since, max(now, lease.since)),)
    return ((lease.since, lease.since + took), (max(now - took, 1), now))


def changed(
    spans: tuple[tuple[int, int], ...], until: float, where: str = "/usr"
) -> tuple[list[str], int, bool]:
    """What changed below `where` in these times (CLOCK_REALTIME, microseconds), and how much.

    By ctime, which nobody can set back. A file that was removed shows as its directory. Looking
    for more is given up at `until` (CLOCK_MONOTONIC, seconds); the last value says whether it
    was not.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    argv = ["find", where, "-xdev", "(", "-false"]
    for begin, end in spans:
        # -newerct means later than, and a file may have the very stamp of the beginning.
        argv += ["-o", "-newerct", _stamp(begin - 1), "!", "-newerct", _stamp(end + SET)]
    argv += [")", "-print0"]
    actions = [(os.POSIX_SPAWN_DUP2, writing, 1)]
    pid = os.posix_spawn("/usr/bin/find", argv, {"LC_ALL": "C"}, file_actions=actions)
    os.close(writing)
    # Somebody may be at work on this machine. Not so for this process, which has a time limit.
    os.setpriority(os.PRIO_PROCESS, pid, 19)
    data, complete = _read(reading, until)
    os.close(reading)
    if not complete:
        os.kill(pid, _signal.SIGKILL)
    # One that a disk holds up is not waited for: it is PID 1's as soon as this process ends.
    os.waitpid(pid, 0 if complete else os.WNOHANG)
    paths = [os.fsdecode(path) for path in data.split(b"\0")[:-1]]
    return sorted(paths)[:FILES_MAX], len(paths), complete


def _read(fd: int, until: float) -> tuple[bytes, bool]:
    """What comes before `until`, and whether that is all of it."""
    pieces: list[bytes] = []
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    while (left := until - time.monotonic()) > 0 and waiting.poll(left * 1000):
        if not (piece := os.read(fd, 1 << 16)):
            return b"".join(pieces), True
        pieces.append(piece)
    return b"".join(pieces), False


def _stamp(time: int) -> str:
    return f"@{time // 10**6}.{time % 10**6:06}"


def main() -> None:
    """`daemon lease-end ID`."""
    end(sys.argv[2])
