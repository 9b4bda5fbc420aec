"""`immud tomb passwd`, `recovery-key`, `header-backup` and `resize`."""

import asyncio
import os
import shlex
import sys
from argparse import Namespace

from immud.cli.create import derivation
from immud.cli.enable import require_root
from immud.cli.keys import TRIES, Keys
from immud.cli.render import visible
from immud.errors import WrongKey
from immud.make.target import human
from immud.model import TombConfig
from immud.watch.devices import Device


def passwd(arguments: Namespace) -> int:
    """Change a passphrase or key. Which of several it is, the old one says."""
    tomb, device = _found("passwd", arguments)
    from immud.make.header import change_key  # noqa: PLC0415 - after the right to use it is clear

    old = _key(arguments, tomb, device, of_file=False)
    new = Keys(arguments.new_key_file, arguments.new_passphrase_fd).chosen(tomb.name)
    asyncio.run(change_key(device.devnode, old, new, derivation(arguments)))
    print(f"The key of tomb {tomb.name} was changed.")
    return 0


def recovery_key(arguments: Namespace) -> int:
    """Add a recovery key, and print it: the only time that anybody sees it."""
    tomb, device = _found("recovery-key", arguments)
    from immud.make.header import add_recovery_key  # noqa: PLC0415 - as above

    key = _key(arguments, tomb, device, of_file=True)
    made = asyncio.run(add_recovery_key(device.devnode, key))
    print(made)
    print(
        "Write it down and keep it in a safe place: it is shown only now, and opens the tomb "
        "wherever its passphrase is asked for.",
        file=sys.stderr,
    )
    return 0


def header_backup(arguments: Namespace) -> int:
    """Write the LUKS header to a file."""
    tomb, device = _found("header-backup", arguments)
    from immud.make.header import back_up, in_memory, lasting_name  # noqa: PLC0415 - as above

    file = os.path.abspath(arguments.file)
    asyncio.run(back_up(device.devnode, file))
    name = lasting_name(device.devnode)
    print(
        f"The header of tomb {tomb.name} is in {file}. Whoever has that file and a passphrase "
        "that is valid today can read the tomb, even after the passphrase was changed.\n"
        "To restore it if the one on the drive is damaged, with the tomb closed:\n"
        f"    cryptsetup luksHeaderRestore {shlex.quote(name) if name else 'DEVICE'} "
        f"--header-backup-file {shlex.quote(file)}"
    )
    if not name:
        from immud.make.observe import title  # noqa: PLC0415 - only here

        print(
            f"DEVICE is {device.devnode} now, on the drive {visible(title(device.devnode))}. By "
            "then it may have another name, and another drive may have this one: check with lsblk "
            "first."
        )
    if in_memory(file):
        print("It is in memory there: copy it to another drive before you power off.")
    return 0


def resize(arguments: Namespace) -> int:
    """Grow an open tomb to the end of its partition or drive."""
    tomb, device = _found("resize", arguments)
    from immud.make import resize as work  # noqa: PLC0415 - as above

    volume, mapping = work.open_volume(tomb)
    # What is less than this is rounding.
    if work.spare(volume, mapping) >= 1 << 20:
        key = _key(arguments, tomb, device, of_file=True)
        asyncio.run(work.grow_mapping(mapping, key))
    size = asyncio.run(work.grow_file_system(volume, mapping))
    print(f"Tomb {tomb.name} has room for {human(size)}.")
    return 0


def _found(command: str, arguments: Namespace) -> tuple[TombConfig, Device]:
    """The tomb and its drive, which is the enrolled one: before anybody types a passphrase."""
    require_root(f"immud tomb {command}")
    from immud.make.find import configured, drive_of  # noqa: PLC0415 - as above

    tomb = configured(arguments.name)
    return tomb, drive_of(tomb)


def _key(arguments: Namespace, tomb: TombConfig, device: Device, *, of_file: bool) -> bytes:
    """A key that opens the volume; who types it has three tries.

    With `of_file`, the key file of the tomb is taken where it has one and nothing else is said.
    """
    from immud.make.header import fits  # noqa: PLC0415 - as above

    keys = Keys(arguments.key_file, arguments.passphrase_fd)
    if of_file and tomb.key.startswith("/") and keys == Keys():
        keys = Keys(file=tomb.key)
    for tries in range(TRIES, 0, -1):
        key = keys.existing(f"Passphrase of tomb {tomb.name}: ")
        try:
            asyncio.run(fits(device.devnode, key))
        except WrongKey as error:
            if keys != Keys() or tries == 1:
                raise
            print(error, file=sys.stderr)
        else:
            break
    return key
