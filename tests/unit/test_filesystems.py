"""Options, ids, superblocks and lines of the kernel's log: the pure part of an open file system."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immud.config import rules
from immud.config.rules import Wrong
from immud.early.mountinfo import MountEntry
from immud.errors import ImmudError
from immud.model import TombConfig
from immud.tomb.drives import match
from immud.tomb.fs import check, filesystems, health, idmap
from immud.tomb.fs.filesystems import ATTRIBUTES, FILE_SYSTEMS
from immud.tomb.fs.health import Fault, Health
from immud.tomb.fs.mounts import split_options
from immud.watch import kmsg


def test_nosuid_and_nodev_always_hold() -> None:
    for fstype in FILE_SYSTEMS:
        attributes, _ = split_options(("nosuid", "defaults", "exec", "rw"), fstype)
        assert attributes == 0x06
    assert split_options(("noexec", "noatime", "ro"), "xfs") == (0x06 | 0x08 | 0x10 | 0x01, [])
    compressed = split_options(("compress=zstd", "acl"), "btrfs")
    assert compressed == (0x06, [("compress", "zstd"), ("acl", None)])


def test_a_carrier_of_any_kind_gets_attributes_and_no_options() -> None:
    assert split_options(("noexec", "noatime"), "vfat") == (0x06 | 0x08 | 0x10, [])
    with pytest.raises(ImmudError, match="not one a tomb with vfat may have"):
        split_options(("uid=1000",), "vfat")


def test_each_log_can_be_left_alone() -> None:
    for fstype in (*match.CARRIERS, *FILE_SYSTEMS):
        options = filesystems.unwritten(fstype)
        assert bool(options) == (fstype not in ("vfat", "exfat", "ext2"))
        given = [name for name, _ in split_options(("ro", *options), fstype)[1]]
        assert {option.partition("=")[0] for option in options} <= set(given)
    assert split_options(("ro", "noload"), "ext3")[1] == [
        ("errors", "remount-ro"),
        ("noload", None),
    ]


def test_ext4_stops_writing_at_the_first_error_unless_told_otherwise() -> None:
    assert split_options((), "ext4")[1] == [("errors", "remount-ro")]
    assert split_options(("errors=continue",), "ext4")[1] == [("errors", "continue")]


@pytest.mark.parametrize(
    "option", ["suid", "dev", "a,suid", "a\nb", "a\tb", "", "=x", "bind", "loop=/dev/loop0", "a b"]
)
def test_options_that_would_undo_that_are_refused(option: str) -> None:
    for fstype in FILE_SYSTEMS:
        with pytest.raises(ImmudError, match="option"):
            split_options((option,), fstype)


@pytest.mark.parametrize(
    ("fstype", "option"),
    [
        # another device, whose content nobody has checked
        ("xfs", "logdev=/dev/sda"),
        ("xfs", "rtdev=/dev/sda"),
        ("btrfs", "device=/dev/sda"),
        ("ext4", "journal_path=/dev/sda"),
        # a path to write to
        ("ext4", "usrjquota=../../etc/passwd"),
        # other owners
        ("ext4", "resuid=1000"),
        ("f2fs", "resuid=1000"),
        # the machine stops with the drive
        ("ext4", "errors=panic"),
        ("f2fs", "errors=panic"),
        # of another file system
        ("xfs", "compress=zstd"),
        ("ext4", "subvol=/x"),
        ("ext4", "context=system_u:object_r:x"),
    ],
)
def test_no_file_system_has_more_options_than_it_should(fstype: str, option: str) -> None:
    with pytest.raises(ImmudError, match="not one a tomb with"):
        split_options((option,), fstype)


@pytest.mark.parametrize("option", ["errors=panic", "logdev=/dev/sda", "usrjquota=x", "nonsense"])
def test_the_configuration_refuses_them_before_there_is_a_drive(option: str) -> None:
    with pytest.raises(Wrong, match="which no file system of a tomb may have"):
        rules.options([option])


def test_ro_is_another_word_for_read_only() -> None:
    assert TombConfig("home", options=("noatime", "ro")).unwritten
    assert TombConfig("home", read_only=True).unwritten
    assert not TombConfig("home", options=("errors=remount-ro",)).unwritten


def test_the_configuration_takes_what_some_file_system_has() -> None:
    for option in (*ATTRIBUTES - {"defaults"}, "compress=zstd:3", "commit=60", "gc_merge", "sync"):
        assert rules.options([option]) == (option,)


# --- who the owners are shown as ----------------------------------------------------


def shown(ranges: tuple[idmap.Range, ...], number: int) -> int:
    return next(out + number - at for at, out, count in ranges if at <= number < at + count)


def test_the_one_who_is_in_the_way_changes_places() -> None:
    assert idmap.ranges({1000: 1001}) == (
        (0, 0, 1000),
        (1000, 1001, 1),
        (1001, 1000, 1),
        (1002, 1002, 0xFFFFFFFF - 1002),
    )
    assert idmap.ranges({1000: 1000}) == ((0, 0, 0xFFFFFFFF),)
    # a chain: 1000 -> 1001 -> 1002, which goes to where the chain began
    assert idmap.exchanged({1000: 1001, 1001: 1002}) == {1000: 1001, 1001: 1002, 1002: 1000}
    with pytest.raises(ImmudError, match="same local user"):
        idmap.exchanged({1000: 1, 1001: 1})


PEOPLE = st.integers(1, 40)


@given(st.dictionaries(PEOPLE, PEOPLE, max_size=12))
def test_nobody_is_lost_and_no_two_are_one(wanted: dict[int, int]) -> None:
    wanted = {v: k for k, v in wanted.items()}  # no two to one
    ranges = idmap.ranges(wanted)
    assert all(shown(ranges, theirs) == ours for theirs, ours in wanted.items())
    assert sorted(shown(ranges, number) for number in range(60)) == list(range(60))
    # as the kernel wants them: without gap or overlap, on either side
    for side in (0, 1):
        ordered = sorted((each[side], each[2]) for each in ranges)
        assert all(at + count == after for (at, count), (after, _) in pairwise(ordered))
        assert sum(count for _, count in ordered) == 0xFFFFFFFF
    untouched = set(range(60)) - set(wanted) - set(wanted.values())
    assert all(shown(ranges, number) == number for number in untouched)


ACCOUNTS = """\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
alice:x:1001:1001:Alice:/home/alice:/bin/bash
backup:x:1002:1002::/home/backup:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
broken line
"""


def test_people_are_those_who_can_log_in() -> None:
    assert idmap.people(ACCOUNTS) == {1001: 1001}


def test_the_single_owner_is_the_single_person() -> None:
    assert idmap.single({1000: 1000}, {1001: 1005}) == ({1000: 1001}, {1000: 1005})
    assert idmap.single({1000: 0}, {1001: 1001}) == ({1000: 1001}, {})
    assert idmap.single({}, {1001: 1001, 1002: 1002}) == ({}, {})


@pytest.mark.parametrize(
    ("owners", "local", "said"),
    [
        ({1000: 1, 1001: 1}, {1000: 1}, "belong to 1000 and 1001"),
        ({1000: 1}, {1000: 1, 1001: 1}, "1000 and 1001 can log in"),
        ({1000: 1}, {}, "nobody can log in"),
    ],
)
def test_who_is_who_is_not_guessed(
    owners: dict[int, int], local: dict[int, int], said: str
) -> None:
    with pytest.raises(ImmudError, match=said):
        idmap.single(owners, local)


def test_the_map_of_the_configuration() -> None:
    assert rules.users("auto") == "auto"
    assert rules.users({"1000": "alice", "1001": 1003}) == ((1000, "alice"), (1001, "1003"))
    for wrong in ("yes", {"0": "alice"}, {"alice": 1000}, {"1000": 0}, {"1000": "a b"}, 3):
        with pytest.raises(Wrong, match="it has to be"):
            rules.users(wrong)
    with pytest.raises(Wrong, match="maps two owners to one user"):
        rules.users({"1000": "alice", "1001": "alice"})


# --- checking -----------------------------------------------------------------------


def superblock(**fields: int) -> bytes:
    """An ext4 superblock that says it is well, but for `fields`."""
    values = {
        "mounts": 3, "most": -1, "magic": 0xEF53, "state": 1,
        "checked": 1000, "interval": 0, "incompatible": 0x2C2, "compatible": 0x46B,
        "orphan": 0,
    }  # fmt: skip
    values |= fields
    block = bytearray(1024)
    at = [values[name] for name in ("mounts", "most", "magic", "state")]
    struct.pack_into("<HhHH", block, 0x34, *at)
    struct.pack_into("<II", block, 0x40, values["checked"], values["interval"])
    struct.pack_into("<II", block, 0x60, values["incompatible"], values["compatible"])
    struct.pack_into("<I", block, 0xE8, values["orphan"])
    return bytes(block)


def test_what_says_that_it_is_well_needs_no_checker() -> None:
    assert check.sound(superblock(), 2000)
    assert check.sound(superblock(most=30), 2000)
    assert check.sound(superblock(interval=1001), 2000)


@pytest.mark.parametrize(
    "fields",
    [
        {"state": 0},
        {"state": 3},
        {"state": 2},
        {"magic": 0},
        {"incompatible": 0x2C6},
        {"compatible": 0x1046B},
        {"mounts": 30, "most": 30},
        {"interval": 1000},
        {"checked": 3000, "interval": 5000},
    ],
)
def test_anything_else_does(fields: dict[str, int]) -> None:
    assert not check.sound(superblock(**fields), 2000)


def test_what_was_deleted_while_it_was_open_waits_for_the_next_mount() -> None:
    assert not check.tidied(superblock())
    assert not check.tidied(superblock(state=0, incompatible=0x2C6)), "that is a log alone"
    assert not check.tidied(bytes(1024))
    assert check.tidied(superblock(orphan=13))
    assert check.tidied(superblock(compatible=0x1046B))


def test_lines_of_progress_become_fractions() -> None:
    told: list[float] = []
    passes = check.Passes(told.append)
    text = b"1 0 4 /dev/dm-0\n1 2 4 /dev/dm-0\n/dev/dm-0: odd\n2 1 2 /dev/dm-0\n5 1 1 /d\n"
    for at in range(len(text)):
        passes.heard(text[at : at + 1])
    assert told == [0.0, 0.35, 0.8, 1.0]
    assert passes.reason == "odd"


def test_it_is_told_in_hundredths_and_never_backwards() -> None:
    told: list[float] = []
    passes = check.Passes(told.append)
    for at in range(5000):
        passes.heard(b"1 %d 5000 /dev/dm-0\n" % at)
    passes.heard(b"1 0 5000 /dev/dm-0\n")
    assert told == sorted(set(told))
    assert len(told) <= 71


def test_the_reason_is_what_it_found_and_safe_to_show() -> None:
    passes = check.Passes(lambda _: None)
    passes.heard(
        b"/dev/mapper/immud-home contains a file system with errors, check forced.\n"
        b"1 0 4 /dev/mapper/immud-home\n"
        b"/dev/mapper/immud-home: Entry 'a\x1b[2J\xff' in / has a bad inode.  "
    )
    assert passes.reason == "Entry 'a?[2J?' in / has a bad inode"


# --- how it is doing ----------------------------------------------------------------


def entry(options: str = "rw", super_options: str = "rw") -> MountEntry:
    return MountEntry(
        id=1, parent=0, dev="254:0", root="/", target="/var/home", options=options,
        fstype="ext4", super_options=super_options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "mapped_read_only", "down", "expected"),
    [
        (None, False, False, Health()),
        (entry(), False, False, Health("ext4")),
        (entry("ro", "ro"), True, False, Health("ext4", True)),
        (entry("ro", "ro,errors=remount-ro"), False, False, Health("ext4", True, Fault.READ_ONLY)),
        (entry("rw", "ro,errors=remount-ro"), False, False, Health("ext4", True, Fault.READ_ONLY)),
        (entry("rw", "rw,emergency_ro"), False, False, Health("ext4", True, Fault.READ_ONLY)),
        (entry("rw", "rw"), False, True, Health("ext4", False, Fault.DOWN)),
        (entry("ro", "rw"), False, False, Health("ext4", True)),
        (entry("ro", "ro,norecovery"), True, False, Health("ext4", True, stale=True)),
        (entry("ro", "ro,rescue=nologreplay"), True, False, Health("ext4", True, stale=True)),
    ],
)
def test_whose_doing_it_is_that_nothing_can_be_written(
    seen: MountEntry | None, mapped_read_only: bool, down: bool, expected: Health
) -> None:
    assert health.of(seen, mapped_read_only=mapped_read_only, down=down) == expected


def test_errors_on_record_stop_what_is_to_stop_at_one() -> None:
    """Linux 6.12 shows such an ext4 as writable, and refuses every write (d3476f3dad4a)."""
    stops = entry("rw", "rw,errors=remount-ro")
    found = health.of(stops, mapped_read_only=False, errors=1)
    assert found == Health("ext4", True, Fault.READ_ONLY)
    assert health.of(stops, mapped_read_only=False) == Health("ext4")
    goes_on = health.of(entry("rw", "rw"), mapped_read_only=False, errors=1)
    assert goes_on == Health("ext4")


def test_what_to_run_is_said() -> None:
    how = health.repair(TombConfig("home", label="x", key="/etc/k"), "/dev/sdb1", "ext4")
    assert how == (
        "to repair it, run: immud close home; "
        "cryptsetup open --key-file /etc/k /dev/sdb1 home-repair && "
        "fsck.ext4 -f /dev/mapper/home-repair; cryptsetup close home-repair; immud open home"
    )
    in_file = TombConfig("dyne", label="x", key="drive:/a.key", file="a.tomb")
    assert health.repair(in_file, "/dev/sdb1", "ext4") == (
        "to repair it, run: immud close dyne; mount /dev/sdb1 /mnt; "
        "cryptsetup open /mnt/a.tomb dyne-repair && fsck.ext4 -f /dev/mapper/dyne-repair; "
        "cryptsetup close dyne-repair; umount /mnt; immud open dyne"
    )
    for fault in (Fault.READ_ONLY, Fault.DOWN):
        assert how in health.sentence(Health("ext4", True, fault), "bad inode", how)
    assert health.sentence(Health("ext4", True), "", how) == ""


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"2,123,456,-;EXT4-fs (dm-0): Remounting filesystem read-only\n DEVICE=b254:0\n", "dm-0"),
        (b"1,1,2,-;XFS (dm-0): Shutting down filesystem", "dm-0"),
        (b"6,1,2,-;BTRFS info (device dm-0: state EA): forced readonly", "dm-0"),
        (b"2,1,2,-;EXT4-fs (dm-10): Remounting filesystem read-only", ""),
        (b"7,1,2,-;dm-0: detail", ""),
        (b"14,1,2,-;dm-0: said by a program", ""),
        (b"2,1,2,-;usb 1-1: new device", ""),
        (b"3,1,2,-;dm-0: writes to dm-1 failed", "dm-0 dm-1"),
        (b"nonsense", ""),
    ],
)
def test_what_the_kernel_says_about_a_device(record: bytes, expected: str) -> None:
    assert kmsg.about(record, frozenset({"dm-0", "dm-1"})) == set(expected.split())
