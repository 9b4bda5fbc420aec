"""What of a header is pinned, what makes a difference and what does not."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immud.errors import WrongVolume
from immud.tomb.luks import identity
from immud.tomb.luks.pin import (
    Pin,
    Unreadable,
    differences,
    dumps,
    from_luks1,
    from_luks2,
    loads,
    refusal,
    unencrypted,
)

UUID = "5f0e4a0a-1b7c-4d1e-9d0c-8c0f3b1d2a6b"

METADATA: dict[str, Any] = {
    "keyslots": {"0": {"type": "luks2", "key_size": 64}},
    "tokens": {},
    "segments": {
        "0": {
            "type": "crypt",
            "offset": "16777216",
            "size": "dynamic",
            "iv_tweak": "0",
            "encryption": "aes-xts-plain64",
            "sector_size": 512,
        }
    },
    "digests": {
        "0": {
            "type": "pbkdf2",
            "keyslots": ["0"],
            "segments": ["0"],
            "hash": "sha256",
            "iterations": 1000,
            "salt": "VQLXyRiN+jjREwyxEK/xMLp4U7tFKD2NJE6YHHi5fVo=",
            "digest": "owKS3wccdJvIjuGA3L5US9qZcZNVGtA5W3NXabyNsGg=",
        }
    },
    "config": {"json_size": "12288", "keyslots_size": "16744448"},
}

DUMP = """LUKS header information for /x

Version:       \t1
Cipher name:   \taes
Cipher mode:   \txts-plain64
Hash spec:     \tsha256
Payload offset:\t4096
MK bits:       \t512
MK digest:     \t4a 60 50 e9 40 92 5e 5c f6 82 0f b6 c4 49 59 c5 c3 7f 85 2b 
MK salt:       \t25 54 22 ce 9f f3 f6 9f f6 7d 1f 5f d5 1f ef bf 
               \t4d f4 de e1 c0 76 ee 38 a5 43 ee 4f b1 b6 e3 04 
MK iterations: \t1000
UUID:          \tb2950952-413f-46e9-9345-bbb73d7c7225

Key Slot 0: ENABLED
\tIterations:         \t1000
\tSalt:               \te8 35 ec c9 9e 7c dc 2f c2 d1 d6 ef 33 06 13 ba 
\t                      \t50 40 39 79 9d f6 76 b0 64 61 81 09 74 1b 6a 09 
"""  # noqa: W291 - so cryptsetup prints it


def luks2(**changes: Any) -> Pin:
    """The pin of METADATA with the values at `a__b` replaced, or taken away where None."""
    metadata = json.loads(json.dumps(METADATA))
    for place, value in changes.items():
        *above, name = place.split("__")
        inner = metadata
        for step in above:
            inner = inner.setdefault(step, {})
        if value is None:
            inner.pop(name, None)
        else:
            inner[name] = value
    return from_luks2(json.dumps(metadata), UUID)


def luks1(dump: str = DUMP) -> Pin:
    return from_luks1(dump, UUID, "aes-xts-plain64", 4096, 64)


def test_what_people_do_to_their_volume_makes_no_difference() -> None:
    changed = luks2(
        keyslots={"0": {"type": "luks2"}, "1": {"type": "luks2"}},
        tokens={"0": {"type": "systemd-tpm2", "keyslots": ["1"]}},
        digests__0__keyslots=["0", "1"],
        config__flags=["allow-discards"],
    )
    assert differences(luks2(), changed) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"segments__0__encryption": "cipher_null-ecb"}, "encryption of its data is cipher_null"),
        ({"segments__0__encryption": "aes-cbc-plain"}, "is aes-cbc-plain and not aes-xts-plain64"),
        ({"segments__0__offset": "4096"}, "offset"),
        ({"segments__0__sector_size": 4096}, "sector_size"),
        ({"segments__0__size": "4096"}, "size of its data is 4096 and not dynamic"),
        ({"segments__0__iv_tweak": "8"}, "iv_tweak"),
        ({"segments__0__integrity": {"type": "hmac(sha256)"}}, "integrity.type"),
        ({"digests__0__digest": "AAAA"}, "volume key"),
        ({"digests__0__salt": "AAAA"}, "volume key"),
        ({"digests__0__iterations": 1001}, "volume key"),
        ({"digests__0__hash": "sha1"}, "volume key"),
        ({"config__requirements": {"mandatory": ["inline-hw-tag"]}}, "inline-hw-tag"),
    ],
)
def test_what_only_another_volume_has_is_a_difference(change: dict[str, Any], said: str) -> None:
    (difference,) = differences(luks2(), luks2(**change))
    assert said in difference


def test_uuid_and_version_are_differences() -> None:
    assert "UUID" in differences(luks2(), replace(luks2(), uuid="other"))[0]
    assert "it is LUKS1 and not LUKS2" in differences(luks2(), luks1())


def test_luks1_has_the_same_in_other_words() -> None:
    pin = luks1()
    assert dict(pin.digest)["digest"].startswith("4a 60 50 e9")
    assert dict(pin.digest)["salt"].endswith("e3 04"), "the salt has two lines"
    assert (pin.cipher, pin.offset, pin.sector_size) == ("aes-xts-plain64", 4096, 512)
    assert differences(pin, luks1(DUMP.replace("4a 60", "4b 60")))
    assert differences(pin, luks1(DUMP.replace("MK iterations: \t1000", "MK iterations: \t999")))
    assert not differences(pin, luks1(DUMP.replace("Iterations:         \t1000", "Iterations: 9")))


def test_a_line_smuggled_into_a_luks1_header_is_seen() -> None:
    with pytest.raises(Unreadable, match="MK digest"):
        luks1(DUMP.replace("xts-plain64", "x\nMK digest: \t00 00 "))


@pytest.mark.parametrize(
    "cipher",
    ["cipher_null-ecb", "cipher_null", "null", "capi:ecb(cipher_null)-plain64", "ecb(cipher_null)"],
)
def test_no_cipher_is_refused_with_or_without_a_pin(cipher: str) -> None:
    assert unencrypted(cipher)
    assert "not encrypted" in refusal(luks2(segments__0__encryption=cipher))


def test_a_plain_segment_is_refused() -> None:
    assert "not encrypted (linear)" in refusal(
        luks2(segments__0__type="linear", segments__0__encryption=None)
    )


def test_what_is_encrypted_is_not_refused() -> None:
    assert not unencrypted("aes-xts-plain64")
    assert refusal(luks2()) == refusal(luks1()) == ""


def test_a_volume_that_is_being_encrypted_anew_is_not_pinned() -> None:
    with pytest.raises(Unreadable, match="cryptsetup reencrypt"):
        luks2(config__requirements={"mandatory": ["online-reencrypt-v2"]})


@pytest.mark.parametrize("pin", [luks2(), luks1(), replace(luks2(), file_system=UUID)])
def test_the_file_holds_all_of_it(pin: Pin) -> None:
    assert loads(dumps(pin)) == pin


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["0", "type", "segments", "offset", "x"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(
    st.sampled_from(["segments", "digests", "config", "keyslots"]),
    st.sampled_from(["", "0"]),
    json_values,
)
def test_any_metadata_is_read_or_refused(table: str, inner: str, value: Any) -> None:
    place = f"{table}__{inner}" if inner else table
    try:
        pin = luks2(**{place: value})
    except Unreadable:
        return
    assert pin.offset >= 0
    assert loads(dumps(pin)) == pin
    refusal(pin)


@pytest.mark.parametrize(
    ("tomb", "device", "command"),
    [
        ("home", "/dev/sdb1", "immud tomb enrol /dev/sdb1"),
        ("vault", "/dev/sdb1", "immud tomb enrol /dev/sdb1 --name vault"),
        ("secret", "/dev/loop7", "rm /etc/immud/tombs/secret.json"),
    ],
)
def test_a_volume_made_anew_is_pinned_by_the_command_that_is_named(
    tomb: str, device: str, command: str
) -> None:
    with pytest.raises(WrongVolume, match=rf"recreated it yourself: {command}$"):
        identity.require(tomb, device, luks2(digests__0__digest="other"), luks2())


@given(st.text() | json_values.map(json.dumps))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (loads, lambda text: from_luks2(text, UUID), luks1):
        with pytest.raises(Unreadable):
            read(text)
