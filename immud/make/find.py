"""The drive of a configured tomb, and proof that it is the one: before a passphrase is typed."""

from collections.abc import Iterable

from immud.config.load import load
from immud.errors import ImmudError, NoSuchTomb
from immud.model import Config, TombConfig
from immud.tomb.drives.match import candidates
from immud.tomb.luks import identity
from immud.watch.devices import Device


def configured(name: str, config: Config | None = None) -> TombConfig:
    """The tomb of that name. Raises NoSuchTomb."""
    tombs = (config or load()).tombs
    for tomb in tombs:
        if tomb.name == name:
            return tomb
    known = ", ".join(tomb.name for tomb in tombs) or "none"
    raise NoSuchTomb(f"No tomb {name} is configured; configured: {known}.")


def only(tomb: TombConfig, devices: Iterable[Device]) -> Device:
    """The one device that answers to `tomb`. Raises ImmudError for none, or several. Pure."""
    found = candidates(tomb, devices)
    if not found:
        raise ImmudError(f"The drive of tomb {tomb.name} is not there; plug it in.")
    if len(found) > 1:
        nodes = ", ".join(device.devnode for device in found)
        raise ImmudError(
            f"More than one drive answers to tomb {tomb.name}: {nodes}. "
            "Unplug all but the right one."
        )
    return found[0]


def has_header(tomb: TombConfig) -> None:
    """Raise ImmudError where `tomb` is not a LUKS volume on a drive or a partition. Pure."""
    if not tomb.encrypted:
        raise ImmudError(f"Tomb {tomb.name} is not encrypted: it has no keys, and no header.")
    if tomb.file:
        raise ImmudError(
            f"Tomb {tomb.name} is a file, {tomb.file} on its drive. Its keys and its size are "
            "matters of the program that made it: see tomb(1)."
        )


def drive_of(tomb: TombConfig) -> Device:
    """The drive of `tomb`, which is the pinned one. Raises WrongVolume where it is not."""
    has_header(tomb)
    from immud.watch.udev import present  # noqa: PLC0415 - brings pyudev, for this alone

    device = only(tomb, present())
    found = identity.of(device.devnode)
    identity.require(tomb.name, device.devnode, found, identity.read(tomb.name))
    return device
