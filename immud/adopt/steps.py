"""What adopting and releasing can do to a system: the only vocabulary of effects.

Paths are absolute, as a person would write them; `immud.adopt.execute` reaches
all of them but those under /run and /etc through a clone of / without what is
mounted on it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """mkdir(2); fails where anything is there."""

    path: str
    mode: int

    def describe(self) -> str:
        return f"make the directory {self.path} ({self.mode:04o})"


@dataclass(frozen=True, slots=True)
class MakeLink:
    """symlink(2); fails where anything is there."""

    path: str
    content: str

    def describe(self) -> str:
        return f"make the link {self.path} -> {self.content}"


@dataclass(frozen=True, slots=True)
class RemoveEmpty:
    """rmdir(2), which itself proves that nothing is in it."""

    path: str

    def describe(self) -> str:
        return f"remove the empty directory {self.path}"


@dataclass(frozen=True, slots=True)
class RemoveLink:
    """unlink(2) of a link of immud's own: one that contains exactly `content`."""

    path: str
    content: str

    def describe(self) -> str:
        return f"remove the link {self.path} -> {self.content}"


@dataclass(frozen=True, slots=True)
class Exchange:
    """renameat2(2) with RENAME_EXCHANGE: what is at the two paths changes places, at once."""

    path: str
    other: str

    def describe(self) -> str:
        return f"exchange {self.path} and {self.other}"


@dataclass(frozen=True, slots=True)
class Sync:
    """fsync(2) of directories: what was done to their entries outlives a power cut."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        return f"write {' and '.join(self.paths)} to the disk"


@dataclass(frozen=True, slots=True)
class Detach:
    """Take away immud's own mount of the directory `what` at `path`; open files stay open."""

    path: str
    what: str

    def describe(self) -> str:
        return f"detach immud's own mount at {self.path}"


@dataclass(frozen=True, slots=True)
class Attach:
    """Mount a writable clone of the directory `what` at `path`, as the next boot would."""

    path: str
    what: str

    def describe(self) -> str:
        if self.path == self.what:
            return f"mount {self.path} on itself, writable"
        return f"mount {self.what} at {self.path}"


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Replace a file of immud's own in /etc, atomically."""

    path: str
    text: str

    def describe(self) -> str:
        return f"write {self.path}"


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """Remove a file of immud's own in /etc."""

    path: str

    def describe(self) -> str:
        return f"remove {self.path}"


@dataclass(frozen=True, slots=True)
class ReloadProfiles:
    """Have AppArmor read its profiles again; a failure of that is reported and changes nothing."""

    def describe(self) -> str:
        return "reload AppArmor's profiles"


Step = (
    MakeDirectory
    | MakeLink
    | RemoveEmpty
    | RemoveLink
    | Exchange
    | Sync
    | Detach
    | Attach
    | WriteFile
    | RemoveFile
    | ReloadProfiles
)
