"""What adopting needs to know about a system before it decides: values, no handles."""

from dataclasses import dataclass
from enum import StrEnum

from immud.early.plan import Row
from immud.early.steps import leads_to


class Kind(StrEnum):
    """What lstat(2) finds at a path."""

    ABSENT = "absent"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is at a path. `content` is a link's, `empty` a directory's, `what` names the rest."""

    kind: Kind = Kind.ABSENT
    content: str = ""
    empty: bool = False
    what: str = ""

    @property
    def is_directory(self) -> bool:
        return self.kind is Kind.DIRECTORY

    @property
    def is_absent(self) -> bool:
        return self.kind is Kind.ABSENT

    def describe(self) -> str:
        if self.kind is Kind.LINK:
            return f"a link to {self.content}"
        if self.kind is Kind.DIRECTORY:
            return "an empty directory" if self.empty else "a directory with something in it"
        return self.what or "something else"


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount at a row's path. `own` tells a clone that immud attached from a stranger.

    `of` is the path, on the root file system, of the directory an own one shows.
    """

    source: str
    fstype: str
    own: bool = False
    of: str = ""


@dataclass(frozen=True, slots=True)
class Declared:
    """A mount that fstab or a unit asks for: `origin` is `/etc/fstab:9` or a unit's path.

    `own` tells what is in the root file system's own /etc where another is shown.
    """

    origin: str
    where: str
    what: str = ""
    own: bool = False


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition that systemd mounts at `where` because of its type (see immud.adopt.gpt).

    Not `mounted`: something is in that directory, and systemd leaves the partition alone.
    """

    device: str
    disk: str
    number: int
    where: str = "/home"
    mounted: bool = True

    @property
    def mend(self) -> str:
        """The command that keeps systemd away from it."""
        return f"sfdisk --part-attrs {self.disk} {self.number} GUID:63"


@dataclass(frozen=True, slots=True)
class Parent:
    """The directory an entry lies in.

    `same` says whether the root file system's own directory is the one everybody
    sees: the proof without which nothing is exchanged. `why` is the reason where
    it is not, `device` the file system's number (st_dev).
    """

    path: str
    same: bool = True
    why: str = ""
    device: int = 0
    read_only: bool = False
    elsewhere: bool = False
    unfit: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """A process that has its own idea of what is mounted at a row's path."""

    path: str
    pid: int
    name: str


@dataclass(frozen=True, slots=True)
class RowFacts:
    """A row of the layout and what is there, below everything mounted on the root file system.

    `path` is what is at the row's path, `directory` at the place it leads to,
    `beside` at the name next to the path that an exchange there passes through.
    Where data have to be copied, `kept` is what is at the name the original keeps,
    `hidden` where its copy grows, `set_aside` where what was released is kept;
    `copied` is what a release put beside the path, and `placed` says that `directory`
    is a copy of a run that was cut off. `users` are who could write in path or
    directory unnoticed, `keepers` the same in what is kept, which `holds` these;
    `inside` is what is mounted inside the directory. `partition` is one that systemd mounts
    at the path by itself.
    """

    row: Row
    path: Entry = Entry()
    directory: Entry = Entry()
    beside: Entry = Entry()
    path_parent: Parent = Parent("/")
    directory_parent: Parent = Parent("/var")
    missing: tuple[str, ...] = ()
    mounts: tuple[Mounted, ...] = ()
    below: tuple[str, ...] = ()
    over: Mounted | None = None
    declared: tuple[Declared, ...] = ()
    kept: Entry = Entry()
    hidden: Entry = Entry()
    set_aside: Entry = Entry()
    copied: Entry = Entry()
    holds: tuple[str, ...] = ()
    placed: bool = False
    users: tuple[str, ...] = ()
    keepers: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    partition: Partition | None = None

    @property
    def copies(self) -> bool:
        """Whether path and directory are on two file systems, and data have to be copied."""
        here, there = self.path_parent, self.directory_parent
        if self.volatile or self.at_boot or not here.same:
            return False
        return there.elsewhere or (there.same and here.device != there.device)

    @property
    def volatile(self) -> bool:
        """Whether the row leads into /run, whose directories every boot makes anew."""
        return self.row.directory.startswith("/run/")

    @property
    def at_boot(self) -> bool:
        """Whether the row changes only at boot: /tmp, where programs keep their sockets."""
        return self.row.path == "/tmp"

    @property
    def adopted(self) -> bool:
        """Whether the link is in its place."""
        return self.row.kind == "link" and self.linked

    @property
    def linked(self) -> bool:
        """Whether the path is a link to where the row leads."""
        return self.leads(self.path)

    def leads(self, entry: Entry) -> bool:
        """Whether `entry` is such a link, relative or absolute."""
        return entry.kind is Kind.LINK and leads_to(self.row, entry.content)


@dataclass(frozen=True, slots=True)
class AppArmor:
    """Whether AppArmor's tunables are there, whether the kernel enforces, and our file's text."""

    installed: bool = False
    active: bool = False
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything `immud.adopt.plan` decides by."""

    rows: tuple[RowFacts, ...]
    host_namespace: bool = True
    writable: bool = True
    apparmor: AppArmor = AppArmor()
    views: tuple[View, ...] = ()


def beside(path: str) -> str:
    """The name next to `path` that boot, too, passes through: /.immud.media for /media."""
    head, _, name = path.rpartition("/")
    return f"{head}/.immud.{name}"


def kept(path: str) -> str:
    """The name the original keeps, once its copy is in use."""
    return f"{path}.immud-adopted"


def set_aside(path: str) -> str:
    """The name that what was copied back keeps."""
    return f"{path}.immud-released"


def copy_of(path: str) -> str:
    """Where a copy that is going to be at `path` grows, in a directory of root's alone."""
    return f"{beside(path)}/{path.rpartition('/')[2]}"


def parent(path: str) -> str:
    """The directory `path` lies in."""
    return path.rpartition("/")[0] or "/"
