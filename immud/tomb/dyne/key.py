"""The keys of Dyne tombs, and the names Debian's tomb(1) knows open ones by. Pure.

A key is a secret in an armored OpenPGP message (RFC 4880) for a passphrase. In
front of it there may be a line that says how the passphrase is stretched first:

    _KDF_pbkdf2sha1_SALT_ROUNDS_LENGTH       since tomb 1.3; the salt in hexadecimal
    _KDF_argon2_SALT_ROUNDS_MEMORY_LENGTH    since tomb 2.10; 2^MEMORY KiB, the salt as written
"""

import re
from dataclasses import dataclass

from immud.errors import ImmudError
from immud.tomb.dyne.zsh import printed
from immud.tomb.luks import dm

BEGIN, END = b"-----BEGIN PGP MESSAGE-----", b"-----END PGP MESSAGE-----"
# The whole name of a mapping has at most 127 bytes.
_STEM = 40
# Beyond these no computer of today comes to an end.
_ROUNDS = 1 << 31
_MEMORY = 32


@dataclass(frozen=True, slots=True)
class Pbkdf2:
    """PBKDF2 with HMAC-SHA-1 (RFC 8018), `length` bytes."""

    salt: bytes
    rounds: int
    length: int


@dataclass(frozen=True, slots=True)
class Argon2:
    """Argon2i (RFC 9106) with one lane and 2^`memory` KiB, 64 bytes; the salt as it is written."""

    salt: str
    rounds: int
    memory: int


@dataclass(frozen=True, slots=True)
class Key:
    """A key: the message with the secret, and how its passphrase is stretched."""

    message: bytes
    kdf: Pbkdf2 | Argon2 | None = None


def parse(data: bytes) -> Key | None:
    """The key in a file; None where the file is not a Dyne key, but itself the secret.

    Raises ImmudError for a stretching that no tomb(1) up to 2.11 knows.
    """
    line, newline, rest = data.partition(b"\n")
    if line.startswith(b"_KDF_") and newline:
        kdf = _kdf(line.decode(errors="replace").strip())
        armored = BEGIN in rest
        # Keys were written down without their frame, and tomb(1) puts it back as well.
        return Key(rest if armored else b"\n".join((BEGIN, b"", rest.strip(), END, b"")), kdf)
    return Key(data) if data.lstrip().startswith(BEGIN) else None


def _kdf(line: str) -> Pbkdf2 | Argon2:
    words = [word for word in line.split("_") if word][1:]
    numbers = [int(word) for word in words[2:] if re.fullmatch(r"[0-9]{1,10}", word, re.ASCII)]
    match words, numbers:
        case ["pbkdf2sha1", salt, _, _], [rounds, length] if _hexadecimal(salt):
            if 0 < rounds < _ROUNDS and 0 < length <= 1024:
                return Pbkdf2(_unhex(salt), rounds, length)
        case ["argon2", salt, _, _, *_], [rounds, memory, *_] if _hexadecimal(salt):
            if 0 < rounds < _ROUNDS and 3 <= memory < _MEMORY and len(salt) >= 8:
                return Argon2(salt, rounds, memory)
    shown = line if line.isprintable() and len(line) < 200 else f"{line[:40]!r}..."
    raise ImmudError(
        f"The key begins with {shown}, which says nothing that tomb 2.11 or older would write; "
        "if a newer one made it, set its passphrase again with a KDF these know."
    )


def _hexadecimal(text: str) -> bool:
    return re.fullmatch(r"[0-9A-Fa-f]+", text, re.ASCII) is not None


def _unhex(text: str) -> bytes:
    """As tomb-kdb-pbkdf2 reads it: a single digit at the end is a byte too."""
    return bytes(int(text[at : at + 2], 16) for at in range(0, len(text), 2))


def passphrases(key: Key, typed: bytes) -> tuple[bytes, ...]:
    """What a typed passphrase may be to the tomb(1) that made the key, likeliest first.

    All the same for most. A percent sign stays as pinentry escapes it; zsh's print
    expands escapes, once when the passphrase comes in and once more on its way to
    gpg; where it goes to be stretched, up to tomb 2.5 one word of it did (scanf(3)).
    """
    found: list[bytes] = []
    for times in (1, 0) if key.kdf else (2, 1, 0):
        for entered in (typed.replace(b"%", b"%25"), typed):
            text = entered
            for _ in range(times):
                text = printed(text).rstrip(b"\n")
            # gpg reads a line: what comes after it is part of the secret.
            found.append(text if key.kdf else text.partition(b"\n")[0])
    if key.kdf:
        found += [words[0] for text in found if len(words := text.split()) > 1]
    return tuple(dict.fromkeys(filter(None, found)))


def secrets(plain: bytes) -> tuple[bytes, ...]:
    """What the secret may be to the tomb(1) that made the key, likeliest first.

    A shell variable loses the newlines at its end, since tomb 2.0; before, the
    secret went to cryptsetup as gpg gave it out.
    """
    return tuple(dict.fromkeys((plain.rstrip(b"\n"), plain)))


def mapping_name(tomb: str, file: str, loop: str, taken: set[str]) -> str:
    """The name for a mapping of the tomb in `file`, on `loop`, as tomb(1) would read it.

    That is tomb.NAME.HASH.LOOP, cut at the dots, and the hash is one of the
    file's path there. No path on a drive says whose a mapping is: in place of it is
    what `belongs` looks for. What a stuck old mapping has kept gets a number behind it.
    """
    stem = file.rpartition("/")[2]
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", stem.rpartition(".")[0] or stem)[:_STEM]
    name = f"tomb.{stem}.{dm.PREFIX}{tomb}.{loop}"
    more = (f"{name}.{count}" for count in range(2, 1000))
    return next(one for one in (name, *more) if one not in taken)


def belongs(name: str, tomb: str) -> bool:
    """Whether a mapping called `name` is one that `mapping_name` named for this tomb."""
    words = name.split(".")
    return len(words) >= 4 and words[0] == "tomb" and words[2] == dm.PREFIX + tomb
