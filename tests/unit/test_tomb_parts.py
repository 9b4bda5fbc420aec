"""The pure parts of the tomb's effects: names, tables, options, control groups, key files."""

import os
import struct
from pathlib import Path

import pytest

from immud.errors import ImmudError
from immud.model import Holder
from immud.tomb import secret
from immud.tomb.holders import maps_name, sentence
from immud.tomb.luks import dm
from immud.tomb.luks.unlock import check_key


def test_mappings_of_a_tomb_are_known_by_name() -> None:
    assert dm.belongs("immud-home", "home")
    assert dm.belongs("immud-home.2", "home")
    assert not dm.belongs("immud-home-2", "home"), "that is the tomb home-2"
    assert dm.belongs("immud-home-2", "home-2")
    assert not dm.belongs("immud-home.x", "home")
    assert not dm.belongs("home", "home")


def test_a_mapping_has_two_nodes() -> None:
    assert dm.Mapping("immud-home", "254:3", "x").nodes == ("/dev/mapper/immud-home", "/dev/dm-3")


def test_a_stuck_mapping_keeps_its_name() -> None:
    assert dm.free_name("home", set()) == "immud-home"
    assert dm.free_name("home", {"immud-home", "immud-home.2"}) == "immud-home.3"


def test_the_request_is_laid_out_as_the_kernel_has_it() -> None:
    """Offsets of struct dm_ioctl in linux/dm-ioctl.h, on every 64-bit architecture."""
    buffer = dm.request("immud-home", 1 << 17, b"payload", 1)
    assert struct.unpack_from("=5I", buffer, 0) == (4, 0, 0, len(buffer), 312)
    assert struct.unpack_from("=I", buffer, 20) == (1,)
    assert struct.unpack_from("=I", buffer, 28) == (1 << 17,)
    assert bytes(buffer[48:59]) == b"immud-home\0"
    assert bytes(buffer[312:320]) == b"payload\0"


@pytest.mark.parametrize(
    ("table", "crypt"),
    [
        (
            ":64:logon:cryptsetup:5f0e4a0a-d0 0 8:16 32768",
            dm.Crypt("aes-xts-plain64", 0, "8:16", 32768),
        ),
        (
            f"{'00' * 64} 8 8:1 4096 2 allow_discards sector_size:4096",
            dm.Crypt("aes-xts-plain64", 8, "8:1", 4096, 4096),
        ),
        (
            ":96:logon:x 0 253:0 0 1 integrity:28:aead",
            dm.Crypt("aes-xts-plain64", 0, "253:0", 0, integrity=True),
        ),
    ],
)
def test_a_crypt_table_is_read_around_its_key(table: str, crypt: dm.Crypt) -> None:
    text = f"aes-xts-plain64 {table}".encode()
    assert dm.parse_crypt(bytearray(b"12345" + text + b"\0more"), 5, 5 + len(text)) == crypt


def test_maps_are_searched_by_device() -> None:
    line = "7f00-7f10 r--p 00000000 fd:0a 123   /var/home/me/lib.so\n"
    assert maps_name(line, [(253, 10)])
    assert not maps_name(line, [(253, 1), (8, 1)])


def test_holders_are_named() -> None:
    one = Holder(77, 1000, "bash", "session-3.scope", "cwd")
    assert sentence([one]) == "bash (pid 77, session-3.scope, cwd)"
    assert sentence([Holder(0, 0, "/var/home/x", "", "tmpfs mounted there")]) == (
        "/var/home/x (tmpfs mounted there)"
    )
    assert sentence([one] * 10).endswith(" and 2 more")


def test_a_key_file_is_root_s_alone(tmp_path: Path) -> None:
    key = tmp_path / "key"
    with pytest.raises(ImmudError, match="No such file"):
        check_key(str(key))
    key.write_bytes(b"x")
    key.chmod(0o600)
    check_key(str(key))
    key.chmod(0o640)
    with pytest.raises(ImmudError, match=r"mode 0640.*chmod 0600"):
        check_key(str(key))
    key.chmod(0o400)
    os.chown(key, 1000, 0)
    with pytest.raises(ImmudError, match="chown root"):
        check_key(str(key))
    with pytest.raises(ImmudError, match="not a regular file"):
        check_key(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImmudError, match="not a regular file"):
        check_key(str(tmp_path / "pipe"))


def test_a_key_is_wiped_after_use(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"correct\nhorse\0")
    key.chmod(0o600)
    with secret.key_file(str(key)) as (buffer, length):
        assert buffer.raw[:length] == b"correct\nhorse\0", "newlines and zeroes are part of it"
        kept = buffer
    assert kept.raw == bytes(len(kept))
    with secret.held(b"pass") as (buffer, length):
        assert buffer.raw[:length] == b"pass"
        kept = buffer
    assert kept.raw == bytes(len(kept))
