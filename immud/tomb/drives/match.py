"""Which block devices answer to the configuration of a tomb. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from immud.model import TombConfig
from immud.tomb.fs.filesystems import FILE_SYSTEMS
from immud.watch.devices import Device

LUKS = "crypto_LUKS"
# What a tomb's file may be on: btrfs is none of these, for its files have a device number of
# their own, by which a loop device could not be told from one on another drive.
CARRIERS = ("vfat", "exfat", "ext2", "ext3", "ext4", "xfs", "f2fs")
# What a key may be on, which is only read, and for a moment.
KEY_DRIVES = (*CARRIERS, "btrfs")

ON_CARRIER = "drive:"
_ELSEWHERE = re.compile(r"(LABEL|UUID|PARTLABEL|PARTUUID)=([^:/]+):/(.+)")


def answers(config: TombConfig, device: Device) -> bool:
    """Whether `device` is a volume that every given key of `config` names.

    A serial is the drive's and all its partitions have it: the one that is a
    LUKS volume is meant, or where the tomb is a file, the one with a file
    system. Where none of the keys is given, nothing answers.
    """
    if device.fs_type not in _types(config):
        return False
    wanted = (
        (config.uuid.lower(), (device.uuid.lower(),)),
        (config.label, (device.label,)),
        (config.partuuid.lower(), (device.partuuid.lower(),)),
        (config.serial, (device.serial, device.serial_short)),
    )
    given = [(want, have) for want, have in wanted if want]
    return bool(given) and all(want in have for want, have in given)


def _types(config: TombConfig) -> tuple[str, ...]:
    if config.file:
        return CARRIERS
    return (LUKS,) if config.encrypted else tuple(FILE_SYSTEMS)


def candidates(config: TombConfig, devices: Iterable[Device]) -> tuple[Device, ...]:
    """All that answer, in a stable order. More than one is ambiguous: neither is opened."""
    found = (device for device in devices if answers(config, device))
    return tuple(sorted(found, key=lambda device: device.key))


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """A key file on a drive: `path` on the file system that `tag` and `value` name.

    `tag` is `drive`, with no value, for the drive the tomb itself is on.
    """

    tag: str
    value: str
    path: str

    @property
    def drive(self) -> str:
        return f"{self.tag}={self.value}"


def key_place(config: TombConfig) -> KeyPlace | None:
    """Where on a drive the key of a tomb is; None where it is on this system, or in a mind."""
    if config.key.startswith(ON_CARRIER):
        return KeyPlace("drive", "", config.key.removeprefix(ON_CARRIER))
    found = _ELSEWHERE.fullmatch(config.key)
    return KeyPlace(found[1], found[2], found[3]) if found else None


def names(configs: Iterable[TombConfig]) -> frozenset[str]:
    """All by which the drives of these tombs, and those with their keys, are known."""
    found = set()
    for config in configs:
        place = key_place(config)
        found |= {config.uuid, config.label, config.partuuid, config.serial}
        found |= {place.value} if place else set()
    return frozenset(filter(None, found))


def key_drives(config: TombConfig, devices: Iterable[Device]) -> tuple[Device, ...]:
    """The drives that answer to the place of its key, where that names one."""
    place = key_place(config)
    if place is None or place.tag == "drive":
        return ()
    value = place.value.lower() if place.tag in ("UUID", "PARTUUID") else place.value
    found = []
    for device in devices:
        have = {
            "UUID": device.uuid.lower(),
            "LABEL": device.label,
            "PARTUUID": device.partuuid.lower(),
            "PARTLABEL": device.partlabel,
        }[place.tag]
        if have == value and device.fs_type in KEY_DRIVES:
            found.append(device)
    return tuple(sorted(found, key=lambda device: device.key))


def waits(config: TombConfig, devices: Iterable[Device]) -> str:
    """What the tomb waits for although its own drive is there; empty where it is nothing."""
    place = key_place(config)
    if place is None or place.tag == "drive":
        return ""
    found = key_drives(config, devices)
    if not found:
        return f"It waits for the drive with its key; plug in {place.drive}."
    if len(found) > 1:
        nodes = ", ".join(device.devnode for device in found)
        return f"{nodes} all answer to {place.drive}, where its key is; unplug all but one."
    return ""
