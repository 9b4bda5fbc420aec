"""The parser of the mount table."""

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immud.early import mountinfo
from immud.early.mountinfo import MountEntry, parse, top

TABLE = (
    "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n"
    "22 21 0:20 / /proc ro,nosuid shared:12 master:3 - proc proc rw\n"
    "30 21 8:1 /usr /usr ro,relatime - ext4 /dev/sda1 rw\n"
    "31 21 8:1 /var /var rw - ext4 /dev/sda1 rw\n"
    "40 31 254:0 / /var/home rw,nosuid,nodev - ext4 /dev/mapper/immud-home rw\n"
)


def test_fields() -> None:
    root, proc, usr, _, home = parse(TABLE)
    assert root == MountEntry(
        id=21,
        parent=1,
        dev="8:1",
        root="/",
        target="/",
        options="rw,relatime",
        optional=("shared:1",),
        fstype="ext4",
        source="/dev/sda1",
        super_options="rw,errors=remount-ro",
    )
    assert proc.optional == ("shared:12", "master:3")
    assert (usr.read_only, usr.super_options, home.read_only) == (True, "rw", False)


def test_read_only_is_not_found_inside_another_option() -> None:
    (entry,) = parse("1 0 8:1 / / rw,errors=remount-ro,proc - ext4 /dev/a ro\n")
    assert not entry.read_only


def test_escapes_and_empty_source() -> None:
    (entry,) = parse("5 1 0:3 /a\\134b /x\\040y\\011z\\012 rw - tmpfs  rw,name=a\\040b\n")
    assert (entry.root, entry.target, entry.source) == ("/a\\b", "/x y\tz\n", "")
    assert entry.super_options == "rw,name=a b"


def test_characters_splitlines_would_split_at() -> None:
    (entry,) = parse("5 1 0:3 / /x\x0c\x85\u2028y rw - tmpfs t rw\n")
    assert entry.target == "/x\x0c\x85\u2028y"


@pytest.mark.parametrize("line", ["1 2 3\n", "a b c d e f - g h i\n", "1 2 8:1 / / rw ext4 a rw\n"])
def test_nonsense_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"-|literal"):
        parse(line)


def test_the_topmost_mount_is_found() -> None:
    stacked = TABLE + (
        "41 40 254:1 / /var/home rw - ext4 /dev/mapper/other rw\n"
        "42 41 254:2 / /var/home rw - ext4 /dev/mapper/third rw\n"
    )
    assert getattr(top(parse(TABLE), "/var/home"), "id", 0) == 40
    assert getattr(top(parse(stacked), "/var/home"), "id", 0) == 42
    assert getattr(top(parse(stacked), "/"), "id", 0) == 21
    assert top(parse(TABLE), "/var/hom") is None
    assert top((), "/") is None


def test_what_a_mount_above_hides_is_not_on_top() -> None:
    hidden = TABLE + "50 31 8:1 /var /var rw - ext4 /dev/sda1 rw\n"
    assert top(parse(hidden), "/var/home") is None
    again = hidden + "51 50 254:0 / /var/home rw - ext4 /dev/mapper/immud-home rw\n"
    assert getattr(top(parse(again), "/var/home"), "id", 0) == 51


def test_a_root_over_the_root() -> None:
    entries = parse("2 2 0:1 / / rw - rootfs rootfs rw\n3 2 8:1 / / rw - ext4 /dev/a rw\n")
    assert getattr(top(entries, "/"), "id", 0) == 3


@given(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1))
def test_any_path_survives_the_kernel_s_escapes(path: str) -> None:
    mangled = "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in path)
    (entry,) = parse(f"9 1 0:1 / /{mangled} rw - tmpfs tmpfs rw\n")
    assert entry.target == "/" + path


def test_this_process_s_own_table() -> None:
    entries = mountinfo.read()
    root = top(entries, "/")
    assert root is not None
    assert root.dev == f"{os.major(os.stat('/').st_dev)}:{os.minor(os.stat('/').st_dev)}"
    proc = top(mountinfo.read(os.getpid()), "/proc")
    assert proc is not None
    assert proc.fstype == "proc"


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, immud.early.mountinfo; print(*sys.modules)"
    out = os.popen(f"{sys.executable} -S -c '{code}'").read().split()  # noqa: S605
    assert "immud.early.mountinfo" in out
    assert not {"re", "dataclasses", "typing", "subprocess", "logging"} & set(out)
