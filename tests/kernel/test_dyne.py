"""Keys made by Debian's own tomb(1), and as its other versions make them: what is in them."""

import asyncio
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immud.errors import ImmudError, WrongKey
from immud.tomb.dyne import gpg
from immud.tomb.dyne import key as dyne
from immud.tomb.dyne.zsh import printed
from tests.support.namespaces import in_namespace
from tests.support.process import run

SECRET = bytes(range(1, 256)) + b"\n\n"
SALT = "84460c4e6cd1a20c81f7a2e3820936ec"


def forged(where: Path, words: str, *options: str) -> bytes:
    """The key that `tomb forge` makes."""
    key = where / "key"
    command = ("tomb", "forge", "-f", "--unsafe", "--tomb-pwd", words, *options, str(key))
    run(*command, env={**os.environ, "HOME": str(where)})
    return key.read_bytes()


def made(passphrase: bytes, *options: str, secret: bytes = SECRET) -> bytes:
    """A message for `passphrase`, made by gpg."""
    with tempfile.TemporaryDirectory() as home:
        command = ("gpg", "--batch", "--no-options", "--homedir", home, "--armor", *options)
        # given, for gpg would have an agent measure it
        command += ("--s2k-count", "65536", "--no-autostart")
        done = subprocess.run(
            (*command, "--passphrase-fd", "0", "--symmetric"),
            input=passphrase + b"\n" + secret,
            capture_output=True,
            check=True,
        )
        return done.stdout


def opened(data: bytes, words: str) -> bytes:
    key = dyne.parse(data)
    assert key
    return asyncio.run(gpg.decrypt(key, words.encode()))


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("rest in peace", ()),
        ("pässwörd 'quoted' \"twice\" $HOME", ()),
        ("back\\slash\\x41\\n", ("--kdf", "1")),
        ("a\\x41\\tb\\\\\\\\d", ()),
        ("first\\nsecond 50%", ()),
        ("other cipher", ("-o", "TWOFISH")),
    ],
)
@in_namespace
def test_a_key_forged_by_tomb(tmp_path: Path, words: str, options: tuple[str, ...]) -> None:
    data = forged(tmp_path, words, *options)
    assert data.startswith(b"_KDF_pbkdf2sha1_") == ("--kdf" in options)
    # What is in it is random, and told by what tomb itself makes of it: see tests/vm. Not even
    # its length is known: zsh's print ends at a "\c" in what tomb has it write.
    assert dyne.secrets(opened(data, words))[0]
    if "--kdf" not in options:
        with pytest.raises(WrongKey):
            opened(data, "x" + words)


def test_nothing_is_started_or_written() -> None:
    def seen() -> tuple[set[str], bool]:
        agents = {p for p in os.listdir("/proc") if p.isdigit() and gpg.HOME in _command(p)}
        return agents, os.path.exists(gpg.HOME)

    data = made(b"words")
    before = seen()
    assert opened(data, "words") == SECRET
    assert seen() == before


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_key_from_before_messages_were_protected() -> None:
    assert opened(made(b"words", "--rfc2440", "--cipher-algo", "CAST5"), "words") == SECRET


def test_before_tomb_2_6_one_word_was_stretched() -> None:
    words = hashlib.pbkdf2_hmac("sha1", b"two", bytes.fromhex(SALT), 100, 64).hex()
    data = f"_KDF_pbkdf2sha1_{SALT}_100_64\n\n".encode() + made(words.encode())
    assert opened(data, "two words") == SECRET
    assert opened(data, "two") == SECRET
    with pytest.raises(WrongKey):
        opened(data, "words two")


def test_stretched_as_tomb_2_10_does_it() -> None:
    """By argon2(1), as tomb calls it; Debian 12's tomb does not yet."""
    words = subprocess.run(
        ("argon2", SALT, "-m", "10", "-t", "2", "-l", "64", "-r"),
        input=b"two words\n",
        capture_output=True,
        check=True,
    ).stdout.strip()
    data = f"_KDF_argon2_{SALT}_2_10_64\n\n".encode() + made(words)
    assert opened(data, "two words") == SECRET
    with pytest.raises(WrongKey):
        opened(data, "two")


def test_more_memory_than_there_is_is_not_taken() -> None:
    key = dyne.Key(b"", dyne.Argon2(SALT, 1, 31))
    with pytest.raises(ImmudError, match="2097152 MiB of memory, more than this machine"):
        asyncio.run(gpg.decrypt(key, b"words"))


def test_a_damaged_key_and_no_key_at_all() -> None:
    data = made(b"words")
    lines = data.splitlines(keepends=True)
    for broken in (b"".join(lines[:3]), lines[0] + b"\n", b"".join(lines[:2]) + b"AAAA\n"):
        with pytest.raises(ImmudError, match="key"):
            opened(broken + b"-----END PGP MESSAGE-----\n", "words")


@pytest.mark.parametrize("words", ["", "two\nlines", "nul\0"])
def test_a_passphrase_is_one_line(words: str) -> None:
    with pytest.raises(WrongKey, match="one line"):
        opened(made(b"words"), words)


@settings(max_examples=5, deadline=None)
@given(
    st.lists(
        st.text(st.sampled_from("\\\\\\aMCcxu0123789bfe-?^q'\" é$Ug%nrtvEZ"), min_size=1),
        min_size=20,
        max_size=100,
    )
)
def test_escapes_are_those_of_zsh(texts: list[str]) -> None:
    script = 'for text in "$@"; do print -n - "$text"; printf "\\0END\\0"; done'
    done = subprocess.run(
        ("zsh", "-fc", script, "zsh", *texts),
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.split(b"\0END\0")[:-1] == [printed(text.encode()) for text in texts]
