"""What is done to the LUKS header of a tomb: its passphrases, its recovery key, its backup.

None of it touches the volume key or the data, so it is done to an open tomb as to a closed one,
and the pin stays what it is.
"""

import json
import os
import re
import shutil
import tempfile
from contextlib import suppress

from immud.early import kernel, mountinfo
from immud.early.mountinfo import MountEntry
from immud.errors import ImmudError, TargetExists, WrongKey
from immud.make.secret import passed
from immud.run import CommandFailed, run
from immud.tomb.drives.below import device_of, stack
from immud.tomb.luks import identity
from immud.tomb.luks.unlock import TIMEOUT

NO_SUCH_KEY = 2
"""cryptsetup(8), RETURN CODES: no permission, a wrong passphrase."""
RECOVERY_KEY = r"\b(?:[cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8}\b"
"""As systemd-cryptenroll(1) prints it: 256 bits in modhex."""


async def fits(device: str, key: bytes) -> None:
    """Raise WrongKey unless `key` opens the volume."""
    try:
        with passed(key) as path:
            await run(
                *("cryptsetup", "open", "--type", "luks", "--test-passphrase"),
                *("--key-file", path, device),
                timeout=TIMEOUT,
            )
    except CommandFailed as error:
        if error.code != NO_SUCH_KEY:
            raise
        raise WrongKey(f"Wrong passphrase or key for {device}.") from error


async def change_key(device: str, old: bytes, new: bytes, derivation: tuple[str, ...]) -> None:
    """Put `new` in the place of `old`. Where a slot is free, the new one is whole before the old
    one goes; LUKS2 has 32. Raises WrongKey, and ImmudError where `old` is a recovery key."""
    if re.fullmatch(RECOVERY_KEY, old.decode(errors="replace")):
        # The token would say of the new one, too, that it is a recovery key, to be wiped as such.
        raise ImmudError(
            "That is a recovery key. Give the passphrase that is to be changed; where it is "
            f"forgotten, add another one with the recovery key: cryptsetup luksAddKey {device}"
        )
    with passed(old) as old_path, passed(new) as new_path:
        try:
            await run(
                *("cryptsetup", "luksChangeKey", "--batch-mode", "--key-file", old_path),
                *(*derivation, device, new_path),
                timeout=2 * TIMEOUT,
            )
        except CommandFailed as error:
            if error.code != NO_SUCH_KEY:
                raise
            raise WrongKey(f"Wrong passphrase or key for {device}.") from error


async def add_recovery_key(device: str, key: bytes) -> str:
    """Have systemd-cryptenroll(1) add a recovery key, with the token that says so; the new key.

    Raises WrongKey, and ImmudError where the volume is LUKS1, which has no tokens.
    """
    if identity.of(device).type != "LUKS2":
        raise ImmudError(
            f"The volume on {device} is LUKS1, which knows no recovery keys; close it, and "
            f"convert it: cryptsetup convert --type luks2 {device}"
        )
    await fits(device, key)
    before = await _slots(device)
    with passed(key) as path:
        said = await run(
            *("systemd-cryptenroll", "--recovery-key", f"--unlock-key-file={path}", device),
            timeout=TIMEOUT,
        )
    # With newer ones there may be more around it.
    found = re.search(RECOVERY_KEY, said.stdout.decode())
    if found is None:
        # Not --wipe-slot=recovery: there may be others, which somebody wrote down.
        new = " ".join(sorted(await _slots(device) - before))
        raise ImmudError(
            "systemd-cryptenroll did not print the recovery key it made; remove it again: "
            f"systemd-cryptenroll --wipe-slot={new} {device}"
        )
    await fits(device, found[0].encode())
    return found[0]


async def _slots(device: str) -> set[str]:
    """The numbers of the key slots in use."""
    said = await run("cryptsetup", "luksDump", "--dump-json-metadata", device)
    return set(json.loads(said.stdout)["keyslots"])


async def back_up(device: str, file: str) -> None:
    """Write the header to a new `file`, for root alone, whole or not at all.

    Raises TargetExists where there is one, ImmudError where it would be on the drive itself.
    """
    directory, name = os.path.split(os.path.abspath(file))
    if os.path.lexists(file):
        raise TargetExists(f"{file} is there already; choose another name. Nothing was changed.")
    if not os.path.isdir(directory):
        raise ImmudError(f"{directory} is no directory; make it first. Nothing was changed.")
    if _disk(device) in {_disk_of(number) for number in stack(device_of(_mount_of(directory)))}:
        raise ImmudError(
            f"{directory} is on the drive of the tomb itself, and would be lost with it; "
            "choose a place on another drive. Nothing was changed."
        )
    # cryptsetup wants a name to write to, and in a directory of somebody else's a name may be
    # another file's by the time that it is used.
    with tempfile.TemporaryDirectory(prefix="immud-", dir="/run") as private:
        made = f"{private}/header"
        await run(
            *("cryptsetup", "luksHeaderBackup", "--batch-mode", device),
            *("--header-backup-file", made),
        )
        to = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _place(made, to, name)
        finally:
            os.close(to)


def _place(made: str, directory: int, name: str) -> None:
    """Copy `made` to a new file, whole and flushed, or leave none."""
    aside = f".{name}.new"
    with suppress(FileNotFoundError):
        os.unlink(aside, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    copy = os.open(aside, flags, 0o600, dir_fd=directory)
    try:
        with open(made, "rb") as source, open(copy, "wb") as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        kernel.renameat2(aside, name, kernel.RENAME_NOREPLACE, dir_fd=directory)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(aside, dir_fd=directory)
        raise
    os.fsync(directory)


def lasting_name(device: str, names: str = "/dev/disk") -> str:
    """A name of the block device that is its own whatever is, or is not, in its header; "" if none.

    Such as udev makes of the partition table or the drive's serial number. /dev/sdb is another
    drive tomorrow.
    """
    for directory in (f"{names}/by-partuuid", f"{names}/by-id"):
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
            path = f"{directory}/{name}"
            with suppress(OSError):
                if os.path.samestat(os.stat(path), os.stat(device)):
                    return path
    return ""


def in_memory(file: str) -> bool:
    """Whether `file` is on a file system that is gone at power-off."""
    return _mount_of(os.path.dirname(os.path.abspath(file))).fstype in ("tmpfs", "ramfs")


def _mount_of(directory: str) -> MountEntry:
    """The mount that a directory is on. Raises ImmudError."""
    path, table = os.path.realpath(directory), mountinfo.read()
    while (entry := mountinfo.top(table, path)) is None:
        if path == "/":
            raise ImmudError("/ is no mount, as in some chroots; do this from outside of it.")
        path = os.path.dirname(path)
    return entry


def _disk(device: str) -> str:
    found = os.stat(device).st_rdev
    return _disk_of(f"{os.major(found)}:{os.minor(found)}")


def _disk_of(number: str) -> str:
    where = os.path.realpath(f"/sys/dev/block/{number}")
    return os.path.dirname(where) if os.path.exists(f"{where}/partition") else where
