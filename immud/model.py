"""The values everything above phase 1 speaks in: frozen, comparable, without handles.

Phase 1 has its own, lighter ones in `immud.early`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from immud.early.plan import Row

NOTHING: Mapping[str, str] = MappingProxyType({})


class ManagerState(StrEnum):
    """What `org.immud1.Manager.State` says of the whole."""

    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"
    STOPPING = "stopping"
    OFF = "off"


class Severity(StrEnum):
    """How much a problem matters: an error makes the state `degraded`, a notice does not."""

    NOTICE = "notice"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something the person should know: a stable code for programs, a sentence for people."""

    severity: Severity
    code: str
    text: str
    data: Mapping[str, str] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True)
class MountFact:
    """A mount immud is responsible for, as the kernel shows it now.

    `state` is `mounted`, `missing`, `writable` (and is to be read-only),
    `read-only` (and is to be writable) or `elsewhere` (not the configured source).
    """

    where: str
    what: str
    fstype: str
    options: str
    read_only: bool
    state: str


@dataclass(frozen=True, slots=True)
class LinkFact:
    """A row of the layout as it is now.

    `state` is `adopted`, `unadopted` (a directory with something in it), `bound`,
    `mounted` (a file system of its own is there), `tmpfs` (/tmp of tmp.mount),
    `foreign` (a link to somewhere else), `blocked` (fstab mounts something there
    or below it, or a unit does) or `missing`.
    """

    path: str
    target: str
    state: str
    kind: str


class TombState(StrEnum):
    """The life of a tomb, as on the bus."""

    ABSENT = "absent"
    PRESENT = "present"
    UNLOCKING = "unlocking"
    CHECKING = "checking"
    OPEN = "open"
    CLOSING = "closing"
    LOST = "lost"
    FAILED = "failed"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True)
class TombConfig:
    """A `[tomb.NAME]` table: which volume, which key, where it goes.

    `uuid`, `label`, `partuuid` and `serial` all have to match where given; at
    least one is. One that is not `encrypted` is a plain file system, known by its own
    `uuid`. With `file` they name a plain file system, the carrier, and the
    volume is that file on it. `key` is the path of a key file, one on another
    drive (`UUID=...:/path`), one on the carrier (`drive:path`), or `ask`.
    `absent` is empty where the place itself decides (see `immud.tomb.absence.absent`). `binds`
    are pairs of a path in the tomb and one on the host; `bind_hooks` is the user in
    whose home the tomb's own may be, or whether that is its single owner. `map`
    says whom the owners on it are shown as: `auto`, or pairs of a number there and a
    user here.
    """

    name: str
    uuid: str = ""
    label: str = ""
    partuuid: str = ""
    serial: str = ""
    encrypted: bool = True
    file: str = ""
    key: str = "ask"
    mount: str = "/var/home"
    options: tuple[str, ...] = ()
    auto_open: bool = True
    absent: str = ""
    absent_size: str = "10%"
    on_return: str = "wait"
    binds: tuple[tuple[str, str], ...] = ()
    bind_hooks: str | bool = False
    on_suspend: str = "keep"
    read_only: bool = False
    map: str | tuple[tuple[int, str], ...] = ()

    @property
    def unwritten(self) -> bool:
        """Whether nothing is to be written to it, ever."""
        return self.read_only or "ro" in self.options


@dataclass(frozen=True, slots=True)
class Tripwire:
    """`[tripwire]`: what is done about a finding, by path, and where mounts are nobody's business.

    A policy is `report` or `relock`; that of a path goes for all below it as well.
    """

    default: str = "report"
    paths: tuple[tuple[str, str], ...] = ()
    allow: tuple[str, ...] = ()

    def policy(self, path: str) -> str:
        """The policy of the longest configured path that `path` is at or below."""
        chosen = [
            (len(place), policy)
            for place, policy in self.paths
            if path == place or path.startswith(place.rstrip("/") + "/")
        ]
        return max(chosen, default=(0, self.default))[1]


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration, checked: nothing in it contradicts anything else."""

    usr: str = "/usr"
    etc: str = "/etc"
    var: str = "/var"
    root_readonly: bool = True
    wait: int = 10
    hold_back: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    tombs: tuple[TombConfig, ...] = ()
    log_level: str = "info"
    tripwire: Tripwire = Tripwire()
    files: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that keeps a volume from being unmounted, and how it does."""

    pid: int
    uid: int
    command: str
    unit: str
    how: str


@dataclass(frozen=True, slots=True)
class TombView:
    """What the bus shows of one tomb. Empty strings for what is not there."""

    name: str
    state: TombState = TombState.ABSENT
    uuid: str = ""
    label: str = ""
    device: str = ""
    mapper: str = ""
    mount_point: str = ""
    auto_open: bool = True
    last_error: str = ""
    absent: str = ""
    fs_type: str = ""
    read_only: bool = False


class Breach(StrEnum):
    """What a finding of the tripwire is about."""

    WRITABLE = "writable"  # a protected mount lost its read-only attribute
    UNMOUNTED = "unmounted"
    OVERMOUNTED = "over-mounted"  # something else is seen in its place, or in a part of it
    SUPERBLOCK = "superblock"  # the file system itself changed between ro and rw
    LINK = "link"  # a link of the layout is gone or leads elsewhere
    NEW_MOUNT = "new-mount"  # a writable mount where none is to be
    WAY_IN = "way-in"  # a writable mount of a protected tree, wherever it is
    TOMB = "tomb-options"  # a tomb without nosuid,nodev


@dataclass(frozen=True, slots=True)
class Finding:
    """Something protected that is not as this boot left it, and still is so.

    `namespace` is the inode number of the mount namespace it is seen in, 0 for the system's
    own. `since` is CLOCK_REALTIME and `since_monotonic` CLOCK_MONOTONIC, in microseconds.
    `by` says what `pid`, `command` and `unit` are: `author`, who did it; `inside`, a process
    that sees it; empty where the kernel does not tell, as with attributes.
    """

    id: int
    kind: Breach
    path: str
    expected: str
    actual: str
    text: str
    namespace: int = 0
    since: int = 0
    since_monotonic: int = 0
    by: str = ""
    pid: int = 0
    command: str = ""
    unit: str = ""


class JobState(StrEnum):
    """Where a job is; a finished one is gone from the bus, its result in JobRemoved."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class JobResult(StrEnum):
    """How a job ended."""

    NONE = ""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class JobView:
    """What the bus shows of one job. `progress` runs from 0.0 to 1.0, -1.0 where unknown.

    `error` is the sentence of one that failed or was cancelled, `error_name` its bus name.
    """

    id: int
    operation: str
    object: str
    state: JobState = JobState.QUEUED
    progress: float = -1.0
    started_by_uid: int = 0
    result: JobResult = JobResult.NONE
    error: str = ""
    error_name: str = ""


@dataclass(frozen=True, slots=True)
class LeaseView:
    """What everybody may know of a lease. `who` is a user id, `since` CLOCK_REALTIME us."""

    id: str
    who: int
    why: str
    since: int
    unit: str
    trial: bool
