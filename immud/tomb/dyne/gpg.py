"""What is in a Dyne tomb's key, by the passphrase for it: GnuPG, and what stretches it before.

gpg needs no agent and no directory of its own for a message that only has a
passphrase: nothing is started and nothing is written. The passphrase and the
message reach it through one pipe.
"""

import os

from immud.child import ChildTimeout, in_child
from immud.errors import ImmudError, WrongKey
from immud.run import CommandFailed, CommandTimeout, run
from immud.tomb import secret
from immud.tomb.dyne.key import Argon2, Key, Pbkdf2, passphrases

# A stretching made for a fast machine takes minutes on a slow one.
TIMEOUT = 300.0
# It is not there, and gpg does not make it.
HOME = "/run/immud/gnupg"
_OPTIONS = (
    *("--batch", "--no-tty", "--no-options", "--homedir", HOME, "--no-autostart"),
    *("--no-keyring", "--no-random-seed-file", "--lock-never", "--trust-model", "always"),
    # Keys from before GnuPG protected messages against change: this one is proven by what it opens.
    "--ignore-mdc-error",
    *("--no-permission-warning", "--no-mdc-warning", "--status-fd", "2"),
    *("--passphrase-fd", "0", "--decrypt"),
)


async def decrypt(key: Key, typed: bytes) -> bytes:
    """The secret in `key`. Raises WrongKey, and ImmudError for a key no passphrase is for."""
    if b"\n" in typed or b"\0" in typed or not typed:
        raise WrongKey("The passphrase of a Dyne tomb's key is one line, and not empty.")
    for passphrase in passphrases(key, typed):
        try:
            return await _open(key, await _stretched(key, passphrase))
        except WrongKey:
            continue
    raise WrongKey("The passphrase does not open the tomb's key.")


async def _stretched(key: Key, passphrase: bytes) -> bytes:
    try:
        if isinstance(key.kdf, Pbkdf2):
            kdf = key.kdf
            answer: str = await in_child(
                pbkdf2, passphrase, kdf.salt, kdf.rounds, kdf.length, timeout=TIMEOUT
            )
            return answer.encode()
        return passphrase if key.kdf is None else await _argon2(key.kdf, passphrase)
    except (ChildTimeout, CommandTimeout) as error:
        raise ImmudError(
            f"Stretching the passphrase takes longer than {TIMEOUT:g} seconds on this machine; "
            "set it again with a smaller --kdf: tomb passwd"
        ) from error


def pbkdf2(passphrase: bytes, salt: bytes, rounds: int, length: int) -> str:
    """In a child: what tomb-kdb-pbkdf2 prints."""
    import hashlib  # noqa: PLC0415 - brings OpenSSL, which nothing else in the daemon needs

    secret.conceal()
    return hashlib.pbkdf2_hmac("sha1", passphrase, salt, rounds, length).hex()


async def _argon2(kdf: Argon2, passphrase: bytes) -> bytes:
    """What argon2(1) prints where tomb(1) runs it: the newline is part of what is stretched."""
    if 1 << kdf.memory > _available():
        raise ImmudError(
            f"Stretching the passphrase needs {(1 << kdf.memory) >> 10} MiB of memory, more than "
            "this machine has free; set it again with a smaller --kdfmem: tomb passwd"
        )
    numbers = ("-m", str(kdf.memory), "-t", str(kdf.rounds), "-l", "64", "-r")
    try:
        result = await run("argon2", kdf.salt, *numbers, stdin=passphrase + b"\n", timeout=TIMEOUT)
    except CommandFailed as error:
        if error.code == 127:
            raise ImmudError(
                "argon2 is missing; install the package argon2 for this key."
            ) from error
        raise
    return result.stdout.strip()


def _available() -> int:
    """How much memory programs could have now, KiB (proc_meminfo(5))."""
    with open("/proc/meminfo", encoding="ascii") as file:
        found = dict(line.split(":", 1) for line in file)
    return int(found["MemAvailable"].split()[0])


async def _open(key: Key, passphrase: bytes) -> bytes:
    try:
        result = await run(
            "gpg",
            *_OPTIONS,
            stdin=passphrase + b"\n" + key.message,
            timeout=TIMEOUT,
            allowed=(0, 1, 2),
        )
    except CommandFailed as error:
        if error.code == 127:
            raise ImmudError("gpg is missing; install the package gpg for this tomb.") from error
        raise
    except CommandTimeout as error:
        raise ImmudError(f"gpg took longer than {TIMEOUT:g} seconds with the key.") from error
    said = result.stderr
    if "[GNUPG:] DECRYPTION_OKAY" in said and result.stdout:
        return result.stdout
    if "[GNUPG:] ENC_TO" in said and "NEED_PASSPHRASE_SYM" not in said:
        raise ImmudError(
            "The tomb's key is made for a pair of GnuPG keys (tomb -g), which live in somebody's "
            "home; give it a passphrase: tomb passwd"
        )
    if "NEED_PASSPHRASE_SYM" in said:
        raise WrongKey("The passphrase does not open the tomb's key.")
    last = os.linesep.join(line for line in said.splitlines() if line.startswith("gpg:"))
    raise ImmudError(f"gpg cannot read the tomb's key: {last or 'it says nothing'}.")
