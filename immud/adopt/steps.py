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


@dataclass(frozen=True, slots=True)
class MakeHidden:
    """mkdir(2) of a directory that is root's alone (0700), for a copy that is not whole yet."""

    path: str

    def describe(self) -> str:
        return f"make the directory {self.path} (0700)"


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing is done: fails where somebody could write in `path` unnoticed."""

    path: str

    def describe(self) -> str:
        return f"make sure that nobody works in {self.path}"


@dataclass(frozen=True, slots=True)
class Copy:
    """rsync(1) until both are the same to the byte, then syncfs(2). Goes on with half a copy."""

    path: str
    place: str

    def describe(self) -> str:
        return f"copy {self.path} to {self.place} and compare every byte"


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Nothing is done: fails where `path` is in use, or no longer the same as its copy."""

    path: str
    place: str

    def describe(self) -> str:
        return f"make sure that {self.path} has not changed meanwhile"


@dataclass(frozen=True, slots=True)
class Place:
    """rename(2) of the copy to its own name, once it is recorded beside it which one it is."""

    place: str
    path: str

    def describe(self) -> str:
        return f"move {self.place} to {self.path}"


@dataclass(frozen=True, slots=True)
class TakeBack:
    """The reverse, for a copy that an interrupted run placed: it may be out of date by now."""

    path: str
    place: str

    def describe(self) -> str:
        return f"move {self.path}, the copy of a run that was cut off, back to {self.place}"


@dataclass(frozen=True, slots=True)
class SetAside:
    """rename(2), to a name that is not taken: what is kept until `--finish`."""

    path: str
    kept: str

    def describe(self) -> str:
        return f"keep {self.path} as {self.kept}"


@dataclass(frozen=True, slots=True)
class RemoveHidden:
    """Remove what MakeHidden made, empty again, with the record of Place."""

    path: str

    def describe(self) -> str:
        return f"remove the empty directory {self.path}"


@dataclass(frozen=True, slots=True)
class RemoveKept:
    """Remove an original that was kept, with all that is in it; `holds` is what that is."""

    path: str
    holds: tuple[str, ...]

    def describe(self) -> str:
        inside = "".join(f"\n    {name}" for name in self.holds)
        return f"remove {self.path} and everything in it:{inside}"


@dataclass(frozen=True, slots=True)
class MountAgain:
    """Mount what is mounted at `path` at `place` as well."""

    path: str
    place: str

    def describe(self) -> str:
        return f"mount what is at {self.path} at {self.place}"


@dataclass(frozen=True, slots=True)
class Unmount:
    """umount(2), which fails while anybody has something open there."""

    path: str

    def describe(self) -> str:
        return f"unmount {self.path}"


@dataclass(frozen=True, slots=True)
class SetFstab:
    """Replace /etc/fstab, atomically, by one with another mount point and the old line kept.

    Also the root file system's own, where another /etc is shown.
    """

    path: str
    place: str

    def describe(self) -> str:
        return f"change the mount point {self.path} in /etc/fstab to {self.place}"


@dataclass(frozen=True, slots=True)
class ReloadUnits:
    """Have systemd read fstab again; where that fails, it does at the next boot."""

    def describe(self) -> str:
        return "reload systemd's units"


Across = (
    MakeHidden
    | Idle
    | Copy
    | Unchanged
    | Place
    | TakeBack
    | SetAside
    | RemoveHidden
    | RemoveKept
    | MountAgain
    | Unmount
    | SetFstab
    | ReloadUnits
)
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
    | Across
)
