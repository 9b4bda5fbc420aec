"""What is done when a lease has ended: off the record, and into the journal."""

import os
import sys
import time

from immud.lease import journal, leftover, record
from immud.lease.begin import fields, running

SET = 2_000_000
"""By how much two clocks may differ, microseconds, before one was set."""
FILES_MAX = 5000
"""Names in the journal; the number is told in any case. A kernel brings as many files."""


def end(id: str) -> None:
    """Take the lease off the record and tell the journal: PID 1 runs this whatever happened.

    Nothing runs in the lease's control group any more.
    """
    lease = record.read(id)
    try:
        # On record as long as something may write, so that nobody takes it for tampering.
        killed = leftover.kill(lease.mnt_ns) if lease else []
    finally:
        record.remove(id)
    if lease is None:
        return
    os.nice(19)  # somebody may be at work on this machine
    now, ran = time.time_ns() // 1000, running()
    lasted = (ran - lease.began if lease.began else now - lease.since) / 1e6
    told = fields(lease)
    result = os.environ.get("SERVICE_RESULT", "")
    if lease.trial:
        text = "nothing it wrote to /usr was kept"
    else:
        files, count = changed(spans(lease, now, ran))
        told["IMMUD_CHANGED"] = str(count)
        told["IMMUD_FILES"] = "\n".join(files)
        text = (
            f"{count} files and directories under /usr changed"
            if count
            else "no file under /usr changed"
        )
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


def changed(spans: tuple[tuple[int, int], ...], where: str = "/usr") -> tuple[list[str], int]:
    """What changed below `where` in these times (CLOCK_REALTIME, microseconds), and how much.

    By ctime, which nobody can set back. A file that was removed shows as its directory.
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
    data = b""
    while piece := os.read(reading, 1 << 16):
        data += piece
    os.close(reading)
    os.waitpid(pid, 0)
    paths = [os.fsdecode(path) for path in data.split(b"\0")[:-1]]
    return sorted(paths)[:FILES_MAX], len(paths)


def _stamp(time: int) -> str:
    return f"@{time // 10**6}.{time % 10**6:06}"


def main() -> None:
    """`daemon lease-end ID`."""
    end(sys.argv[2])
