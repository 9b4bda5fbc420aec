"""Unlocking by systemd-cryptsetup(8): key files, passphrases and the ask-password agents.

No secret is ever on a command line, in a file or in a log of ours.
"""

import os
import stat

from immud.errors import ImmudError, WrongKey
from immud.run import CommandFailed, run

PROGRAMS = (
    "/usr/bin/systemd-cryptsetup",
    "/usr/lib/systemd/systemd-cryptsetup",
    "/lib/systemd/systemd-cryptsetup",
)
# A key derivation made for a fast machine takes minutes on a slow one.
TIMEOUT = 300.0


def program() -> str:
    """Where systemd-cryptsetup is on this release."""
    for path in PROGRAMS:
        if os.path.exists(path):
            return path
    raise ImmudError(
        "systemd-cryptsetup is not installed; install the package systemd-cryptsetup "
        "(Debian 13) or systemd (Debian 12)."
    )


def check_key(path: str) -> None:
    """Raises ImmudError where a key file is missing, or others could read or change it."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise ImmudError(f"The key file {path} cannot be used: {error.strerror}.") from error
    if not stat.S_ISREG(found.st_mode):
        raise ImmudError(f"The key file {path} is not a regular file.")
    if found.st_uid != 0:
        raise ImmudError(f"The key file {path} belongs to user {found.st_uid}: chown root {path}")
    if found.st_mode & 0o077:
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        raise ImmudError(f"Others may use the key file {path} (mode {mode}): chmod 0600 {path}")


async def attach(mapping: str, device: str, key: str, passphrase: bytes | None) -> None:
    """Unlock the LUKS volume on `device` as `mapping`; udev has seen the mapping on return.

    `key` is a key file's path or `ask`, over which `passphrase` takes precedence.
    Raises ImmudError, WrongKey where the key is not one of the volume's.
    """
    if passphrase is not None:
        arguments, timeout = ("/dev/stdin", "luks,headless=true,tries=1"), TIMEOUT
    elif key == "ask":
        # The person takes the time they need; pulling the drive or cancelling ends the question.
        arguments, timeout = ("-", "luks,tries=3"), None
    else:
        check_key(key)
        # Headless, or a key file that does not fit turns into a question nobody expects.
        arguments, timeout = (key, "luks,headless=true,tries=1"), TIMEOUT
    try:
        await run(
            program(),
            "attach",
            mapping,
            device,
            *arguments,
            stdin=passphrase or b"",
            timeout=timeout,
        )
    except CommandFailed as error:
        said = error.stderr
        if any(text in said for text in ("incorrect?", "Too many attempts", "passphrase")):
            which = "passphrase" if passphrase is not None or key == "ask" else f"key file {key}"
            raise WrongKey(f"The {which} does not open the volume on {device}.") from error
        raise
