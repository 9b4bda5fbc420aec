"""What opens a volume that is more than a drive and a passphrase: keys on drives, keys with one.

A key is read when it is needed, from where it is; a Dyne key asks for its
passphrase, three times. What comes out is in memory alone.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from immud.child import held, in_child
from immud.courtesy import waiting
from immud.errors import ImmudError, WrongKey
from immud.model import TombConfig
from immud.run import STDIN_LIMIT, CommandFailed, run
from immud.tomb.drives import carrier, match
from immud.tomb.drives.drive import number_of
from immud.tomb.dyne import gpg
from immud.tomb.dyne import key as dyne
from immud.tomb.luks import unlock
from immud.tomb.luks.headstart import HeadStart
from immud.watch.devices import Device

TRIES = 3
# Room for the passphrase that goes to gpg in the same pipe.
_LONGEST = STDIN_LIMIT - 4096


async def secrets(
    config: TombConfig,
    device: Device,
    key_drive: Device | None,
    passphrase: bytes | None,
    *,
    read_only: bool = False,
) -> tuple[bytes, ...]:
    """What may open the volume on `device`, likeliest first.

    Empty where the passphrase, or the answer to a question, itself does. With
    `read_only` the key's drive is not written to either. Raises WrongKey, ImmudError.
    """
    data = await _key(config, device, key_drive, passphrase, read_only=read_only)
    if data is None:
        return ()
    key = dyne.parse(data)
    if key is None:
        # For a drive a passphrase takes precedence; for a file it could only have been for its key.
        return () if passphrase is not None and not config.file else (data,)
    if len(data) > _LONGEST:
        raise ImmudError(f"The key {config.key} is longer than any of a Dyne tomb's; look at it.")
    for attempt in range(TRIES):
        typed = await _ask(config, attempt) if passphrase is None else passphrase
        try:
            return dyne.secrets(await gpg.decrypt(key, typed))
        except WrongKey:
            if passphrase is not None or attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


async def _key(
    config: TombConfig,
    device: Device,
    key_drive: Device | None,
    passphrase: bytes | None,
    *,
    read_only: bool,
) -> bytes | None:
    """What is in the key file; None where there is none, or it is not for us to read."""
    place = match.key_place(config)
    if place is None:
        ours = config.file and config.key.startswith("/")
        return await in_child(carrier.read_local_key, config.key) if ours else None
    where = device if place.tag == "drive" else key_drive
    if where is not None:
        on = (where.devnode, where.fs_type, place.path)
        key: bytes = await in_child(carrier.read_key, *on, read_only)
        return key
    if passphrase is not None and not config.file:
        return None
    raise ImmudError(f"The drive with the key, {place.drive}, is gone; plug it in again.")


async def _ask(config: TombConfig, attempt: int) -> bytes:
    """The passphrase for the key, from a person at one of systemd's password agents."""
    again = " (wrong; try again)" if attempt else ""
    try:
        # The person takes the time they need; pulling the drive or cancelling ends the question.
        with waiting():
            answer = await run(
                *("systemd-ask-password", "--no-tty", "--timeout=0", "-n"),
                *("--icon=drive-harddisk", f"--id=immud:{config.name}"),
                f"Passphrase for the key of tomb {config.name}{again}:",
                timeout=None,
            )
    except CommandFailed as error:
        raise ImmudError(
            f"Nobody gave the passphrase for its key; try again: immud open {config.name}"
        ) from error
    return answer.stdout


@asynccontextmanager
async def ground(
    config: TombConfig, device: Device, *, read_only: bool = False
) -> AsyncIterator[tuple[str, str]]:
    """The node and `major:minor` of the block device with the volume.

    That of a tomb in a file is a loop device, which ends with the block unless
    something stands on it by then.
    """
    if not config.file:
        yield device.devnode, device.number
        return
    attaching = held(carrier.attach, device.devnode, device.fs_type, config.file, read_only)
    async with attaching as node:
        yield node, number_of(node)


async def open_volume(
    config: TombConfig,
    request: unlock.Request,
    found: tuple[bytes, ...],
    headstart: HeadStart,
) -> unlock.Inner:
    """Unlock with whichever of the secrets found fits, or where there are none, as asked."""
    if not found:
        return await unlock.open_volume(request, None if request.asks else headstart.take())
    for secret in found:
        try:
            return await unlock.open_volume(replace(request, passphrase=secret))
        except WrongKey:
            continue
    raise WrongKey(
        f"The key {config.key} is not one of the volume's: it belongs to another tomb, "
        "or to this one before its key was changed."
    )
