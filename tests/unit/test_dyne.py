"""Dyne's keys and names as values: headers, passphrases, mappings."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from immud.errors import ImmudError
from immud.tomb.dyne import key as dyne
from immud.tomb.dyne.key import Argon2, Key, Pbkdf2, parse
from immud.tomb.dyne.zsh import printed

SALT = "84460c4e6cd1a20c81f7a2e3820936ec6c739fba87620ed1b6558138f17895cd"
MESSAGE = b"-----BEGIN PGP MESSAGE-----\n\njA0ECQMC\n-----END PGP MESSAGE-----\n"


def test_a_key_with_nothing_before_it() -> None:
    # tomb writes an empty line where it writes no header
    assert parse(b"\n" + MESSAGE) == Key(b"\n" + MESSAGE)


def test_a_key_whose_passphrase_is_stretched() -> None:
    key = parse(f"_KDF_pbkdf2sha1_{SALT}_1678415_64\n\n".encode() + MESSAGE)
    assert key
    assert key.kdf == Pbkdf2(bytes.fromhex(SALT), 1678415, 64)
    assert key.message.strip() == MESSAGE.strip()
    key = parse(f"_KDF_argon2_{SALT}_3_18_64\n\n".encode() + MESSAGE)
    assert key
    assert key.kdf == Argon2(SALT, 3, 18)


def test_a_key_that_lost_its_frame_gets_one() -> None:
    key = parse(f"_KDF_pbkdf2sha1_{SALT}_10_64\njA0ECQMC\n".encode())
    assert key
    assert key.message == b"-----BEGIN PGP MESSAGE-----\n\njA0ECQMC\n-----END PGP MESSAGE-----\n"


@pytest.mark.parametrize(
    "line",
    [
        "_KDF_",
        "_KDF_scrypt_00_1_2",
        f"_KDF_pbkdf2sha1_{SALT}_1000",
        f"_KDF_pbkdf2sha1_{SALT}_0_64",
        f"_KDF_pbkdf2sha1_{SALT}_1000_65536",
        f"_KDF_pbkdf2sha1_{SALT}_99999999999_64",
        f"_KDF_pbkdf2sha1_{SALT}_1000_x",
        f"_KDF_pbkdf2sha1_{SALT}_١٢_64",
        "_KDF_pbkdf2sha1_salt_1000_64",
        f"_KDF_argon2_{SALT}_3_40_64",
        "_KDF_argon2_abcdef_3_18_64",
        "_KDF_argon2_--version_3_18_64",
        "_KDF_\x1b[2J_1_2_3",
    ],
)
def test_a_header_nobody_knows_is_said(line: str) -> None:
    with pytest.raises(ImmudError, match="which says nothing that tomb") as raised:
        parse(f"{line}\n".encode() + MESSAGE)
    assert str(raised.value).isprintable()


@given(st.binary(max_size=200))
@example(b"_KDF_pbkdf2sha1_0_1_1_\n")
@example(b"_KDF_\xff\n")
def test_any_file_is_a_key_a_secret_or_refused(data: bytes) -> None:
    for start in (b"", b"_KDF_", b"_KDF_pbkdf2sha1_", b"_KDF_argon2_"):
        try:
            key = parse(start + data)
        except ImmudError:
            continue
        if key is None:
            assert dyne.BEGIN not in (start + data).lstrip()[:27]


@given(st.integers(1, 1 << 30), st.integers(1, 1024), st.binary(min_size=1, max_size=64))
def test_what_tomb_writes_is_read(rounds: int, length: int, salt: bytes) -> None:
    line = f"_KDF_pbkdf2sha1_{salt.hex()}_{rounds}_{length}\n"
    key = parse(line.encode() + MESSAGE)
    assert key
    assert key.kdf == Pbkdf2(salt, rounds, length)


def test_a_passphrase_as_older_ones_understood_it() -> None:
    plain, stretched = Key(MESSAGE), Key(MESSAGE, Pbkdf2(b"s", 1, 1))
    assert dyne.passphrases(plain, b"simple") == (b"simple",)
    assert dyne.passphrases(plain, b"a\\\\tb") == (b"a\tb", b"a\\tb", b"a\\\\tb")
    assert dyne.passphrases(plain, b"a\\nb") == (b"a", b"a\\nb")
    assert dyne.passphrases(plain, b"50%") == (b"50%25", b"50%")
    assert dyne.passphrases(plain, b"two words") == (b"two words",)
    assert dyne.passphrases(stretched, b"two words") == (b"two words", b"two")
    assert dyne.passphrases(stretched, b"a\\\\b") == (b"a\\b", b"a\\\\b")
    assert dyne.passphrases(stretched, b"  ") == (b"  ",)


def test_a_secret_may_have_lost_its_newlines() -> None:
    assert dyne.secrets(b"abc") == (b"abc",)
    assert dyne.secrets(b"a\nbc\n\n") == (b"a\nbc", b"a\nbc\n\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (rb"a\x4g", b"a\x04g"),
        (rb"\012b\12b\0777", b"\nb\nb\x3f7"),
        (rb"\q\\n\"", rb"q\n" + b'"'),
        (rb"\e\E\a\u00e9\U1f600z", b"\x1b\x1b\x07\xc3\xa9\xf0\x9f\x98\x80z"),
        (rb"a\cb", b"a"),
        (rb"\M-x\Mx\C-x\M-\C-x", b"\xf8\xf8\x18\x98"),
        (b"end\\", b"end\\"),
    ],
)
def test_escapes_are_those_of_zsh(text: bytes, shown: bytes) -> None:
    """What zsh 5.9 wrote for each; tests/kernel compares the two."""
    assert printed(text) == shown


@given(st.binary())
def test_without_a_backslash_nothing_changes(text: bytes) -> None:
    text = text.replace(b"\\", b"")
    assert printed(text) == text


def test_a_mapping_is_named_as_tomb_reads_it_and_is_ours() -> None:
    name = dyne.mapping_name("home", "tombs/my secret.v2.tomb", "loop3", set())
    assert name == "tomb.my_secret_v2.immud-home.loop3"
    assert name.split(".")[3] == "loop3"
    assert dyne.belongs(name, "home")
    again = dyne.mapping_name("home", "tombs/my secret.v2.tomb", "loop3", {name})
    assert again == f"{name}.2"
    assert dyne.belongs(again, "home")
    assert not dyne.belongs(name, "hom")
    assert not dyne.belongs("tomb.secret." + "0" * 64 + ".loop3", "home"), "tomb(1)'s own"
    assert not dyne.belongs("immud-home", "home")


@given(
    st.text(
        st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1
    ).map(lambda t: f"{t}.tomb")
)
def test_any_file_name_makes_a_mapping_s_name(file: str) -> None:
    name = dyne.mapping_name("n" * 31, file, "loop1048575", set())
    assert len(name.encode()) < 120
    assert name.count(".") == 3
    assert dyne.belongs(name, "n" * 31)
