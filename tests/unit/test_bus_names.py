"""Object paths: readable, reversible, and the same as systemd's."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immud.bus import names
from immud.bus.stream import message_size, parse_address


@given(st.text(st.characters(blacklist_categories=("Cs",))))
def test_any_label_is_one_element_and_comes_back(label: str) -> None:
    element = names.encode(label)
    assert element
    assert all(
        character.isascii() and (character.isalnum() or character == "_") for character in element
    )
    assert names.decode(element) == label


def test_bytes_that_are_no_text_come_back_too() -> None:
    assert names.decode(names.encode("a\udcff")) == "a\udcff"


@pytest.mark.parametrize(
    ("label", "element"),
    # sd_bus_path_encode(3) and its bus_label_escape
    [("home", "home"), ("", "_"), ("a-b", "a_2db"), ("1st", "_31st"), ("a1", "a1"), ("_", "_5f")],
)
def test_known_elements(label: str, element: str) -> None:
    assert names.encode(label) == element


@pytest.mark.parametrize("where", ["/", "/usr", "/var/home", "/usr/local", "/var/a-b"])
def test_mounts_are_named_as_their_units(where: str) -> None:
    unit = subprocess.run(
        ["systemd-escape", "--path", where], check=True, capture_output=True, text=True
    ).stdout.rstrip("\n")
    path = names.mount_path(where)
    assert names.decode(path.removeprefix("/org/immud1/mount/")) == unit


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("/org/immud1/job/7", 7),
        ("/org/immud1/job/4294967295", 4294967295),
        ("/org/immud1/job/" + "1" * 5000, 0),
        ("/org/immud1/job/x", 0),
        ("/org/immud1/job/\u0667", 0),
        ("/org/immud1/tomb/7", 0),
        ("/", 0),
    ],
)
def test_job_paths(path: str, number: int) -> None:
    assert names.job_number(path) == number


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/run/dbus/system_bus_socket", "/run/dbus/system_bus_socket"),
        ("unix:path=/run/dbus/system_bus_socket", "/run/dbus/system_bus_socket"),
        ("tcp:host=x,port=1;unix:path=/run/b,guid=00", "/run/b"),
        ("unix:abstract=/tmp/x", "\0/tmp/x"),
    ],
)
def test_addresses(address: str, path: str) -> None:
    assert parse_address(address) == path


@pytest.mark.parametrize("address", ["", "tcp:host=x", "unix:tmpdir=/tmp"])
def test_addresses_we_cannot_use(address: str) -> None:
    with pytest.raises(ValueError, match="bus address"):
        parse_address(address)


@given(st.integers(0, 1 << 27), st.integers(0, 1 << 26), st.sampled_from("lB"))
def test_the_size_of_a_message(body: int, fields: int, order: str) -> None:
    byteorder = "little" if order == "l" else "big"
    header = order.encode() + b"\1\0\1" + body.to_bytes(4, byteorder)  # type: ignore[arg-type]
    header += b"\0\0\0\1" + fields.to_bytes(4, byteorder)  # type: ignore[arg-type]
    size = message_size(header)
    assert size == 16 + fields + (-fields % 8) + body
