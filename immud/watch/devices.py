"""Block devices as values, and which of them came, changed or went.

Pure: `immud.watch.udev` feeds it what libudev says.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

# All but what udev leaves as it is in every property.
_STRANGE = re.compile(r"[^0-9A-Za-z#+\-.:=@_]+")
_ENCODED = re.compile(rb"\\x([0-9a-fA-F]{2})")


@dataclass(frozen=True, slots=True)
class Device:
    """A block device as udev's database describes it; empty strings for what it does not know.

    `number` is `major:minor`; `diskseq` tells one plug of a drive from the
    next (block(7) of sysfs, since Linux 5.15); `disk` is the path in sysfs of
    the whole disk, its own where it is one.
    """

    devpath: str
    devnode: str
    number: str
    diskseq: str = ""
    fs_type: str = ""
    uuid: str = ""
    label: str = ""
    partuuid: str = ""
    partlabel: str = ""
    serial: str = ""
    serial_short: str = ""
    disk: str = ""

    @property
    def key(self) -> str:
        """What one plug of one device is known by: the path alone is used again."""
        return f"{self.devpath}#{self.diskseq}"

    @property
    def names(self) -> frozenset[str]:
        """What a configuration may know it by, in lower case."""
        of_what_is_on_it = (self.uuid, self.label, self.partuuid, self.partlabel)
        given = (*of_what_is_on_it, self.serial, self.serial_short)
        return frozenset(name.lower() for name in given if name)


class What(StrEnum):
    """What happened to a device."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """A device came, changed or went. A removed one is as it was last seen."""

    what: What
    device: Device


def describe(devpath: str, properties: Mapping[str, str]) -> Device:
    """The device of an entry in udev's database."""
    get = properties.get
    whole = get("DEVTYPE") != "partition"
    return Device(
        devpath=devpath,
        devnode=get("DEVNAME", ""),
        number=f"{get('MAJOR', '0')}:{get('MINOR', '0')}",
        diskseq=get("DISKSEQ", ""),
        fs_type=get("ID_FS_TYPE", ""),
        uuid=get("ID_FS_UUID", ""),
        label=decoded(get("ID_FS_LABEL_ENC", "")) or get("ID_FS_LABEL", ""),
        partuuid=get("ID_PART_ENTRY_UUID", ""),
        partlabel=decoded(get("ID_PART_ENTRY_NAME", "")),
        serial=get("ID_SERIAL", ""),
        serial_short=get("ID_SERIAL_SHORT", ""),
        disk=devpath if whole else devpath.rpartition("/")[0],
    )


def decoded(text: str) -> str:
    """A label as it was written: udev writes unusual bytes as `\\x20` in its _ENC properties.

    Whatever was written, this can be said on the bus: UTF-8 without a zero byte.
    """
    raw = _ENCODED.sub(
        lambda match: bytes((int(match[1], 16),)), text.encode(errors="surrogateescape")
    )
    return raw.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def mention(names: Iterable[str]) -> re.Pattern[bytes]:
    """What is found in every event, in lower case, of a device that has one of these names.

    It may be found in others too: how udev writes a character that is not plain is left open.
    """
    found = (
        b"[^\0]*".join(re.escape(plain.lower()).encode() for plain in _STRANGE.split(name))
        for name in names
    )
    return re.compile(b"=(?:" + (b"|".join(found) or b"(?!)") + b")\0")


def usable(properties: Mapping[str, str], *, initialized: bool, sectors: str) -> bool:
    """Whether a device counts as being there: udev is done with it, and it has a medium.

    A card reader without a card and a disconnected NBD stay in sysfs, with a
    size of 0; `SYSTEMD_READY=0` is how udev rules say "not yet" (systemd.device(5)).
    """
    return (
        initialized and properties.get("SYSTEMD_READY") != "0" and sectors.strip() not in ("", "0")
    )


class Inventory:
    """The block devices that are there, by their path in sysfs."""

    def __init__(self) -> None:
        self._devices: dict[str, Device] = {}

    @property
    def devices(self) -> tuple[Device, ...]:
        return tuple(self._devices.values())

    def __contains__(self, devpath: str) -> bool:
        return devpath in self._devices

    def seen(self, device: Device) -> tuple[DeviceEvent, ...]:
        """`device` is there as described."""
        known = self._devices.get(device.devpath)
        if known == device:
            return ()
        gone: tuple[DeviceEvent, ...] = ()
        if known and known.diskseq != device.diskseq:
            # Another drive, or medium, took the place before we heard of the end of the first.
            gone, known = self.removed(device.devpath), None
        self._devices[device.devpath] = device
        return (*gone, DeviceEvent(What.CHANGED if known else What.ADDED, device))

    def removed(self, devpath: str, diskseq: str = "") -> tuple[DeviceEvent, ...]:
        """The device is gone, or not usable any more; late news of another plug change nothing."""
        known = self._devices.get(devpath)
        if known is None or (diskseq and known.diskseq and diskseq != known.diskseq):
            return ()
        del self._devices[devpath]
        return (DeviceEvent(What.REMOVED, known),)

    def ended(self, disk: str) -> tuple[DeviceEvent, ...]:
        """A drive is as good as gone: it and its partitions count as new when seen again."""
        gone = [path for path, device in self._devices.items() if device.disk == disk]
        return tuple(event for path in gone for event in self.removed(path))

    def only(self, devpaths: Iterable[str]) -> tuple[DeviceEvent, ...]:
        """After a fresh look at sysfs: whatever is not among `devpaths` is gone."""
        there = set(devpaths)
        gone = [path for path in self._devices if path not in there]
        return tuple(event for path in gone for event in self.removed(path))
