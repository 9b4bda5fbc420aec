"""What is in a tomb's place while it is away, decided from values."""

import pytest

from immud.early.mountinfo import parse
from immud.model import TombConfig
from immud.tomb.absence.absent import (
    SOURCE,
    Absent,
    Home,
    User,
    announcement,
    choose,
    drive,
    fallback,
    ground,
    homes,
    limits,
    refusal,
    shown,
)
from immud.tomb.absence.managers import owner

LINKS = {"/home": "/var/home"}
FALLBACK = f"40 20 0:50 / /var/home rw,nosuid,nodev - tmpfs {SOURCE} rw,size=1024k\n"
TOMB = "41 40 254:0 / /var/home rw,nosuid,nodev - ext4 /dev/mapper/immud-home rw\n"


def real(path: str) -> str:
    return LINKS.get(path, path)


def test_those_who_live_there_have_a_home() -> None:
    users = [
        User(0, 0, "/root"),
        User(1000, 1000, "/home/alice"),
        User(1001, 100, "/var/home/bob/"),
        User(1002, 1002, "/srv/carol"),
        User(998, 998, "/home/deep/dave"),
        User(65534, 65534, "/nonexistent"),
        User(1003, 1003, ""),
        User(1004, 1004, "home/relative"),
        User(1005, 1005, "/home/.."),
    ]
    found = homes(users, "/var/home", real)
    assert found == (Home("alice", 1000, 1000), Home("bob", 1001, 100))


def test_of_two_with_one_home_the_first_has_it() -> None:
    users = [User(1000, 1000, "/home/alice"), User(1001, 1001, "/home/alice")]
    assert homes(users, "/var/home", real) == (Home("alice", 1000, 1000),)


def test_a_place_may_be_one_person_s_home() -> None:
    users = [User(1000, 1000, "/home/alice"), User(1001, 1001, "/home/bob")]
    assert homes(users, "/var/home/alice", real) == (Home("", 1000, 1000),)


def test_a_daemon_at_home_in_all_of_home_gets_nothing() -> None:
    assert homes([User(104, 104, "/home")], "/var/home", lambda path: path) == ()
    daemon, alice = User(2000, 2000, "/var/home"), User(1000, 1000, "/home/alice")
    assert homes([daemon, alice], "/var/home", real) == (Home("alice", 1000, 1000),)


@pytest.mark.parametrize(
    ("configured", "empty", "lived_in", "mode"),
    [
        ("", False, True, Absent.DIRECTORY),
        ("", True, True, Absent.VOLATILE),
        ("", True, False, Absent.DIRECTORY),
        ("directory", True, True, Absent.DIRECTORY),
        ("volatile", False, False, Absent.VOLATILE),
        ("nologin", True, True, Absent.NOLOGIN),
    ],
)
def test_the_mode(configured: str, empty: bool, lived_in: bool, mode: Absent) -> None:
    assert choose(configured, empty=empty, lived_in=lived_in) is mode


def test_limits() -> None:
    assert limits("512M", 0) == (512 << 20, 32768)
    assert limits("2G", 0) == (2 << 30, 131072)
    assert limits("10%", 1 << 30) == ((1 << 30) // 10, (1 << 30) // 10 // 16384)
    assert limits("1M", 0) == (1 << 20, 1024)


def test_the_fallback_is_known_below_the_tomb_and_by_its_source() -> None:
    table = parse(FALLBACK + TOMB)
    found = fallback(table, "/var/home")
    assert found
    assert found.dev == "0:50"
    assert fallback(table, "/var/home/alice") is None
    assert fallback(parse(FALLBACK.replace(SOURCE, "tmpfs")), "/var/home") is None
    assert fallback(parse(FALLBACK.replace(" tmpfs ", " ext4 ")), "/var/home") is None


def test_what_is_shown_is_what_the_kernel_has() -> None:
    table = parse(FALLBACK + TOMB)
    assert shown(table, "/var/home", "") is Absent.VOLATILE
    assert shown(table, "/var/home", "directory") is Absent.VOLATILE
    assert shown((), "/var/home", "volatile") is Absent.DIRECTORY
    assert shown((), "/var/home", "nologin") is Absent.NOLOGIN


def test_the_drive_is_named_as_a_person_would_know_it() -> None:
    assert drive(TombConfig("home", uuid="5f0e", label="Ada")) == "the drive labelled Ada"
    assert "serial number S1" in drive(TombConfig("home", uuid="5f0e", serial="S1"))
    assert "LUKS UUID 5f0e" in drive(TombConfig("home", uuid="5f0e"))
    assert "lost at power-off" in announcement(TombConfig("home", label="Ada"))
    assert "Plug in the drive labelled Ada" in refusal(TombConfig("home", label="Ada"))


def test_whose_manager_a_control_group_is() -> None:
    assert owner("/user.slice/user-1000.slice/user@1000.service/app.slice/dbus.service") == 1000
    assert owner("/user.slice/user-1000.slice/session-3.scope") is None
    assert owner("/system.slice/user@.service") is None


def test_the_ground_is_known_by_each_path_that_shows_it() -> None:
    table = parse(
        "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "21 20 8:1 /var /var rw - ext4 /dev/sda1 rw\n"
        "22 20 8:1 /var/home /home rw - ext4 /dev/sda1 rw\n"
        "23 21 254:0 / /var/home/alice rw - ext4 /dev/mapper/immud-alice rw\n"
        "24 21 8:1 /var/lib/x /var/home/x rw - ext4 /dev/sda1 rw\n"
        "25 21 8:1 /var/home2 /var/home2 rw - ext4 /dev/sda1 rw\n"
    )
    found = ground(table, "/var/home")
    assert found.prefixes == ("/var/home", "/home")
    assert found.inside == ("254:0",)
    assert ground(table, "/srv").prefixes == ("/srv",)
