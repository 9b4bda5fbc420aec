"""The records of leases, in /run/immud/leases/ID: who has one, why, and since when.

A directory with a small file for each thing, written aside and moved into place, so
that what is there is whole. What is everybody's to know everybody may read: not
until when, nor the command. The tripwire knows a lease's mount namespace by `mnt-ns`.
"""

import os
import time

DIRECTORY = "/run/immud/leases"  # also immud.early.namespaces.LEASES
PUBLIC = ("who", "why", "since", "unit", "mnt-ns", "trial")
_FOR_ALL = 0o755  # whatever the umask of who asks
_PRIVATE = ("until", "command", "pid", "watcher", "began")


class Record:
    """One lease.

    `who` is a user id; `since` and `until` are CLOCK_REALTIME microseconds (`until` 0: as long
    as the command takes), `began` is the beginning by CLOCK_BOOTTIME, which nobody sets (0 where
    an older immud gave the lease that this one ends); `pid` is the process it lasts as long as,
    `watcher` the one that waits for its end, in the mount namespace `mnt_ns` (an inode number)
    and the service's control group. `trial` says that nothing written to /usr stays.
    """

    __slots__ = (
        "began",
        "command",
        "id",
        "mnt_ns",
        "pid",
        "since",
        "trial",
        "unit",
        "until",
        "watcher",
        "who",
        "why",
    )

    def __init__(
        self,
        id: str,
        *,
        who: int = 0,
        why: str = "",
        since: int = 0,
        until: int = 0,
        began: int = 0,
        command: tuple[str, ...] = (),
        unit: str = "",
        mnt_ns: int = 0,
        trial: bool = False,
        pid: int = 0,
        watcher: int = 0,
    ) -> None:
        self.id = id
        self.who = who
        self.why = why
        self.since = since
        self.until = until
        self.began = began
        self.command = command
        self.unit = unit
        self.mnt_ns = mnt_ns
        self.trial = trial
        self.pid = pid
        self.watcher = watcher

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]


def new_id() -> str:
    """A name that no other lease has had: the time, and something random.

    It begins with a letter, so that it is itself in an object path.
    """
    return f"t{time.time_ns() // 10**9:x}{os.urandom(3).hex()}"


def prepare(directory: str = DIRECTORY) -> None:
    """Make the place where the records are, whatever the umask."""
    for place in (os.path.dirname(directory), directory):
        try:
            os.mkdir(place, _FOR_ALL)
        except FileExistsError:
            continue
        os.chmod(place, _FOR_ALL)


def write(record: Record, directory: str = DIRECTORY) -> None:
    """Put a lease on record."""
    prepare(directory)
    aside = f"{directory}/.{record.id}"
    os.mkdir(aside, 0o755)
    os.chmod(aside, _FOR_ALL)
    for name in (*PUBLIC, *_PRIVATE):
        value = getattr(record, name.replace("-", "_"))
        data = b"\0".join(map(os.fsencode, value)) if name == "command" else _text(value)
        mode = 0o644 if name in PUBLIC else 0o600
        fd = os.open(f"{aside}/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode)
        os.fchmod(fd, mode)
        os.write(fd, data)
        os.close(fd)
    os.rename(aside, f"{directory}/{record.id}")


def _text(value: object) -> bytes:
    return os.fsencode(f"{int(value) if isinstance(value, bool) else value}\n")


def read(id: str, directory: str = DIRECTORY) -> Record | None:
    """The lease of that name, or None where there is none."""
    found = {"began": b"0"}
    for name in (*PUBLIC, *_PRIVATE):
        try:
            with open(f"{directory}/{id}/{name}", "rb") as file:
                found[name] = file.read()
        except (FileNotFoundError, NotADirectoryError):
            if name not in found:
                return None
    numbers = {
        name.replace("-", "_"): int(found[name])
        for name in ("who", "since", "until", "mnt-ns", "pid", "watcher", "began")
    }
    return Record(
        id,
        why=os.fsdecode(found["why"][:-1]),
        unit=os.fsdecode(found["unit"][:-1]),
        trial=found["trial"].strip() == b"1",
        command=tuple(map(os.fsdecode, found["command"].split(b"\0"))),
        **numbers,
    )


def names(directory: str = DIRECTORY) -> list[str]:
    """The leases there are, oldest first."""
    try:
        return sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except FileNotFoundError:
        return []


def remove(id: str, directory: str = DIRECTORY) -> None:
    """Take a lease off the record; one that is not there is gone already."""
    aside = f"{directory}/.{id}"
    try:  # noqa: SIM105 - contextlib takes longer to import than all this
        os.rename(f"{directory}/{id}", aside)
    except OSError:
        pass  # gone, or half-written by someone who was killed
    try:
        for name in os.listdir(aside):
            os.unlink(f"{aside}/{name}")
        os.rmdir(aside)
    except FileNotFoundError:
        pass
