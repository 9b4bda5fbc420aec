"""Unlocking a volume, and making sure that it is the pinned one before, during and after.

Key files and passphrases go through libcryptsetup in a child of ours; what asks a
person, or a token, is systemd-cryptsetup(8). Both open with a copy of the header that
was compared with the pin. No secret is ever on a command line, in a file or in a log
of ours.
"""

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from immud.child import Standby, early_from_child, in_child
from immud.courtesy import waiting
from immud.errors import ImmudError, WrongKey
from immud.run import CommandFailed, run
from immud.tomb import secret
from immud.tomb.fs import blkid, check
from immud.tomb.fs.filesystems import FILE_SYSTEMS
from immud.tomb.luks import dm, header, identity, libcryptsetup, live
from immud.tomb.luks.pin import Pin, dumps, loads, unencrypted
from immud.tomb.secret import check as check_key

__all__ = ["FILE_SYSTEMS", "TIMEOUT", "Inner", "Request", "check_key", "open_volume", "recognise"]

PROGRAMS = (
    "/usr/bin/systemd-cryptsetup",
    "/usr/lib/systemd/systemd-cryptsetup",
    "/lib/systemd/systemd-cryptsetup",
)
# A key derivation made for a fast machine takes minutes on a slow one.
TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Request:
    """To open the volume of tomb `tomb` on `device`, which is `number` (major:minor), as `mapping`.

    `key` is a key file's path or `ask`, over which `passphrase` takes precedence.
    """

    tomb: str
    device: str
    number: str
    mapping: str
    key: str = "ask"
    passphrase: bytes | None = field(default=None, repr=False)
    read_only: bool = False

    @property
    def asks(self) -> bool:
        return self.key == "ask" and self.passphrase is None


@dataclass(frozen=True, slots=True)
class Inner:
    """The file system in an unlocked and verified volume. `pinned` where that was just now.

    `sound` where its checker has nothing to do.
    """

    mapping: str
    fs_type: str
    uuid: str
    pinned: bool = False
    sound: bool = False


def program() -> str:
    """Where systemd-cryptsetup is on this release."""
    for path in PROGRAMS:
        if os.path.exists(path):
            return path
    raise ImmudError(
        "systemd-cryptsetup is not installed; install the package systemd-cryptsetup "
        "(Debian 13) or systemd (Debian 12)."
    )


async def open_volume(request: Request, standby: Standby | None = None) -> Inner:
    """Unlock the volume and say what is in it, if need be with a child that stands by.

    Raises WrongVolume where it is not the pinned one, WrongKey where the key is not one
    of its keys, ImmudError.
    """
    if not request.asks:
        if standby:
            return Inner(*await standby.perform(*astuple(request), timeout=TIMEOUT))
        return Inner(*await early_from_child(_unlock, request, timeout=TIMEOUT))
    pinned = await in_child(_prepare, request)
    try:
        await _ask(request)
    finally:
        header.drop(request.tomb)
    return Inner(*await in_child(_verify, request, pinned))


async def recognise(request: Request) -> Inner:
    """What is in a volume that an earlier run of the daemon unlocked. Raises as above."""
    return Inner(*await in_child(_recognise, request))


async def _ask(request: Request) -> None:
    """Have systemd-cryptsetup(8) ask the person, or a token, for the key."""
    # The person takes the time they need; pulling the drive or cancelling ends the question.
    options = f"luks,tries=3,header={header.path(request.tomb)}"
    options += ",read-only" if request.read_only else ""
    try:
        with waiting():
            await run(
                *(program(), "attach", request.mapping, request.device, "-", options), timeout=None
            )
    except CommandFailed as error:
        if any(t in error.stderr for t in ("incorrect?", "Too many attempts", "passphrase")):
            raise _wrong_key(request) from error
        raise


def _wrong_key(request: Request) -> WrongKey:
    asked = request.passphrase is not None or request.asks
    which = "passphrase" if asked else f"key file {request.key}"
    return WrongKey(f"The {which} does not open the volume on {request.device}.")


# --- in a child -------------------------------------------------------------------


def prepare() -> None:
    """Have the libraries that `unlocking` needs loaded, and their first calls made."""
    secret.conceal()
    blkid.load()
    header.rehearse()


def unlocking(tell: Callable[[object], None], *fields: Any) -> None:
    """`_unlock` for a child that stands by: the fields of the `Request` are what it is told."""
    _unlock(tell, Request(*fields))


Answer = tuple[str, str, str, bool, bool]


def _unlock(tell: Callable[[object], None], request: Request) -> None:
    """With a key file or a passphrase: header, pin, key, table and file system in one child.

    It answers when the mapping is live and verified, and ends when udev knows it too.
    """
    secret.conceal()
    # Without a name: this may still be waiting for udev when the tomb is opened the next time.
    with header.copied(request.device) as copy:
        expected = _expected(request, copy)
        copy.header.set_data(request.device)
        mapped = live.Live(request.mapping, lambda: tell(_told(request, expected)))
        with _key(request) as (key, length):
            try:
                copy.header.activate(request.mapping, key, length, read_only=request.read_only)
            except libcryptsetup.Failed as error:
                if error.errno == errno.EPERM:
                    raise _wrong_key(request) from error
                raise
    mapped.now()
    live.unlink(request.mapping)


def _key(request: Request) -> AbstractContextManager[tuple[secret.Buffer, int]]:
    if request.passphrase is None:
        return secret.key_file(request.key)
    return secret.held(request.passphrase)


def _told(request: Request, pin: Pin) -> object:
    """What was found, or the exception that says why it is not used."""
    try:
        answer = _compare(request, pin)
        live.link(request.mapping, dm.node(request.mapping))
    except Exception as error:
        return error
    return answer


def _expected(request: Request, copy: header.Copy) -> Pin:
    """The pin of the copied header, which is fit to be opened, and now complete."""
    found = identity.shown(copy.header)
    pinned = identity.read(request.tomb)
    identity.require(request.tomb, request.device, found, pinned)
    copy.complete()
    return pinned or found


def _prepare(request: Request) -> str:
    """Leave a copy of the header that is the pinned one, for another program to open with."""
    with header.copied(request.device, request.tomb, keep=True) as copy:
        return dumps(_expected(request, copy))


def _verify(request: Request, pinned: str) -> Answer:
    return _compare(request, loads(pinned))


def _recognise(request: Request) -> Answer:
    return _compare(request, identity.read(request.tomb) or identity.of(request.device))


def _compare(request: Request, pin: Pin) -> Answer:
    """Hold the live table against the pin, and only then look at what is inside."""
    table = dm.crypt(request.mapping)
    wanted = dm.Crypt(pin.cipher, pin.iv_tweak, request.number, pin.offset, pin.sector_size)
    if table is None or table != wanted or unencrypted(table.cipher):
        how = f"the kernel decrypts it as {table or 'nothing'} instead of {wanted}"
        raise identity.wrong(request.tomb, request.device, how)
    node = dm.node(request.mapping)
    fs_type, uuid = blkid.probe(node, tuple(FILE_SYSTEMS))
    if not fs_type:
        raise ImmudError(
            f"The volume holds no file system that a tomb can have, which are "
            f"{', '.join(FILE_SYSTEMS)}. Make one with: mkfs.ext4 /dev/mapper/{request.mapping}"
        )
    if pin.file_system and pin.file_system != uuid:
        how = f"the file system in it is {uuid} and not {pin.file_system}"
        raise identity.wrong(request.tomb, request.device, how)
    pinned = _pin(request.tomb, pin, uuid)
    return request.mapping, fs_type, uuid, pinned, check.is_sound(fs_type, node)


def _pin(tomb: str, pin: Pin, uuid: str) -> bool:
    """Pin what was opened with one's own key for the first time; whether that was now."""
    if pin.file_system:
        return False
    new = identity.read(tomb) is None
    identity.write(tomb, replace(pin, file_system=uuid))
    return new
