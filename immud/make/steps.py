"""What making a tomb does to a drive: the only vocabulary of effects. No secret is in any of it."""

from dataclasses import dataclass

from immud.make.target import PART_NAME, Stage, Wish


@dataclass(frozen=True, slots=True)
class Unmap:
    """Take away a mapping of ours."""

    mapping: str

    def describe(self) -> str:
        return f"lock /dev/mapper/{self.mapping}"


@dataclass(frozen=True, slots=True)
class Wipe:
    """wipefs(8): what is on these devices is no longer recognised, and so not found again."""

    devnodes: tuple[str, ...]

    def describe(self) -> str:
        return f"erase the signatures of what is on {' and '.join(self.devnodes)}"


@dataclass(frozen=True, slots=True)
class Partition:
    """sfdisk(8): a GPT with one partition, whose type says LUKS."""

    disk: str

    def describe(self) -> str:
        return f"make a partition table on {self.disk}, with one partition named {PART_NAME}"


@dataclass(frozen=True, slots=True)
class Format:
    """cryptsetup luksFormat, LUKS2; `stage` is in the header from its first byte on."""

    volume: str
    label: str
    stage: Stage
    derivation: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"make an encrypted volume (LUKS2) on {self.volume}, labelled {self.label}"


@dataclass(frozen=True, slots=True)
class Map:
    """cryptsetup open."""

    volume: str
    mapping: str

    def describe(self) -> str:
        return f"unlock it as /dev/mapper/{self.mapping}"


@dataclass(frozen=True, slots=True)
class MakeFileSystem:
    """mkfs(8)."""

    mapping: str
    filesystem: str
    label: str

    def describe(self) -> str:
        return f"create the {self.filesystem} file system in it"


@dataclass(frozen=True, slots=True)
class Mark:
    """Say in the LUKS2 header how far it is; the label stays."""

    volume: str
    label: str
    stage: Stage

    def describe(self) -> str:
        how = {
            Stage.NONE: "finished",
            Stage.FORMATTING: "unfinished",
            Stage.COPYING: "one that homes are being copied to",
        }
        return f"mark {self.volume} as {how[self.stage]}"


@dataclass(frozen=True, slots=True)
class Copy:
    """Copy a directory into the file system, and prove that all of it arrived."""

    mapping: str
    filesystem: str
    source: str

    def describe(self) -> str:
        return f"copy {self.source} to it, and compare every byte"


@dataclass(frozen=True, slots=True)
class Enrol:
    """Pin the volume, and describe it in the configuration."""

    volume: str
    wish: Wish

    def describe(self) -> str:
        return f"enrol it as tomb {self.wish.name}, to be opened at {self.wish.mount}"


Step = Unmap | Wipe | Partition | Format | Map | MakeFileSystem | Mark | Copy | Enrol
