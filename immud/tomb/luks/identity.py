"""Which volume a tomb is: its pin, read off a drive, and kept in /etc/immud/tombs.

Every call here may block; in the daemon they are for children (`immud.child.in_child`).
"""

import os
from contextlib import suppress

from immud.errors import ImmudError, WrongVolume
from immud.tomb.luks import header, libcryptsetup
from immud.tomb.luks.pin import Pin, Unreadable, differences, dumps, from_luks1, from_luks2, loads
from immud.tomb.luks.pin import refusal as _refusal

DIRECTORY = "/etc/immud/tombs"


def of(device: str) -> Pin:
    """The pin of the LUKS volume on `device` (or in a file), read without any key.

    Raises WrongVolume where no volume like it is ever opened (it is not
    encrypted), ImmudError where its header is damaged, OSError.
    """
    with header.copied(device) as copy:
        pin = shown(copy.header)
    require("", device, pin, None)
    return pin


def shown(header: libcryptsetup.Header) -> Pin:
    """The pin of a header that was read. Raises ImmudError."""
    if header.type == "LUKS2":
        return from_luks2(header.json(), header.uuid)
    return from_luks1(header.dump(), header.uuid, header.cipher, header.offset, header.key_size)


def require(name: str, device: str, found: Pin, pinned: Pin | None) -> None:
    """Raises WrongVolume unless the volume found is fit to open and, where one is, the pinned
    one of tomb `name`.
    """
    if reason := _refusal(found):
        raise WrongVolume(f"Refusing to open {device}: {reason}.")
    if pinned and (said := differences(pinned, found)):
        raise wrong(name, device, "; ".join(said))


def wrong(name: str, device: str, how: str) -> WrongVolume:
    """The error about a drive that is not the enrolled one, and `how` that shows."""
    # What is in a file on a drive is not enrolled: it is pinned again as it is opened.
    again = f"rm {path(name)}" if device.startswith("/dev/loop") else enrol(name, device)
    return WrongVolume(
        f"{device} matches the tomb's identifiers but is not the enrolled volume: {how}. "
        f"If you recreated it yourself: {again}"
    )


def enrol(name: str, device: str) -> str:
    """The command that pins tomb `name` to the volume on `device`."""
    return f"immud tomb enrol {device}" + (f" --name {name}" if name != "home" else "")


def path(name: str) -> str:
    """Where the pin of tomb `name` is kept."""
    return f"{DIRECTORY}/{name}.json"


def read(name: str) -> Pin | None:
    """The pin of tomb `name`, None where it has none.

    Raises ImmudError for one that cannot be read: it is not taken for none.
    """
    try:
        with open(path(name), encoding="utf-8") as file:
            return loads(file.read())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, Unreadable) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise ImmudError(
            f"{path(name)}, which says which volume tomb {name} is, cannot be read: {reason}. "
            f"With the right drive plugged in, enrol it again: {enrol(name, 'DEVICE')}"
        ) from error


def write(name: str, pin: Pin) -> None:
    """Keep `pin` for tomb `name`; after a power cut the old one is there, or the new. OSError."""
    os.makedirs(DIRECTORY, 0o700, exist_ok=True)
    where = path(name)
    aside = f"{where}.new"
    with suppress(FileNotFoundError):
        os.unlink(aside)
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(dumps(pin))
        file.flush()
        os.fsync(fd)
    os.rename(aside, where)
    _sync(DIRECTORY)
    _sync(os.path.dirname(DIRECTORY))


def forget(name: str) -> bool:
    """Remove the pin of tomb `name`; whether there was one. The drive is not touched. OSError."""
    try:
        os.unlink(path(name))
    except FileNotFoundError:
        return False
    _sync(DIRECTORY)
    return True


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
