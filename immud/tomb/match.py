"""Which block devices answer to the configuration of a tomb. Pure."""

from collections.abc import Iterable

from immud.model import TombConfig
from immud.watch.devices import Device

LUKS = "crypto_LUKS"


def answers(config: TombConfig, device: Device) -> bool:
    """Whether `device` is a LUKS volume that every given key of `config` names.

    A serial is the drive's and all its partitions have it: the one that is a
    LUKS volume is meant. Where none of the keys is given, nothing answers.
    """
    if device.fs_type != LUKS:
        return False
    wanted = (
        (config.uuid.lower(), (device.uuid.lower(),)),
        (config.label, (device.label,)),
        (config.partuuid.lower(), (device.partuuid.lower(),)),
        (config.serial, (device.serial, device.serial_short)),
    )
    given = [(want, have) for want, have in wanted if want]
    return bool(given) and all(want in have for want, have in given)


def candidates(config: TombConfig, devices: Iterable[Device]) -> tuple[Device, ...]:
    """All that answer, in a stable order. More than one is ambiguous: neither is opened."""
    found = (device for device in devices if answers(config, device))
    return tuple(sorted(found, key=lambda device: device.key))
