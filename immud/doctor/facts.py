"""What the doctor needs to know of a machine: values, no handles."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from immud.adopt.facts import Observed, Partition
from immud.model import Problem, Severity


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing in the way: `what` is so, `why` that matters, `mend` the commands against it.

    `fix` names what `immud doctor --fix` does about it by itself; empty where a person decides.
    """

    severity: Severity
    code: str
    what: str
    why: str
    mend: tuple[str, ...] = ()
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Home:
    """A line of passwd(5) whose home is behind a link."""

    user: str
    uid: int
    path: str


@dataclass(frozen=True, slots=True)
class Room:
    """How full a file system is: shares from 0.0 to 1.0 of its bytes and inodes in use."""

    path: str
    space: float
    inodes: float
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """A machine as `judge` judges it.

    `protect_home` maps services to the value of their ProtectHome=, `automounters` enabled
    units to what they mount; `modules` are kernel modules that are needed and not there.
    """

    adoption: Observed = field(default_factory=lambda: Observed(rows=()))
    problems: tuple[Problem, ...] = ()
    protect_home: Mapping[str, str] = field(default_factory=dict)
    homes: tuple[Home, ...] = ()
    new_homes: str = "/home"
    partitions: tuple[Partition, ...] = ()
    rooms: tuple[Room, ...] = ()
    automounters: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    tmp_mount: bool = False
