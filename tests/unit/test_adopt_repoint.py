"""The plan for a path that is a file system of its own, in every state a cut can leave."""

from dataclasses import replace

import pytest

from immud.adopt import steps
from immud.adopt.facts import (
    Declared,
    Entry,
    Kind,
    Mounted,
    Observed,
    Parent,
    Partition,
    RowFacts,
)
from immud.adopt.plan import adopt_steps, release_steps
from immud.config.layout import SILVERBLUE
from immud.errors import Busy, ImmudError, OtherFileSystem

HOME = SILVERBLUE[0]
EMPTY = Entry(Kind.DIRECTORY, empty=True)
FULL = Entry(Kind.DIRECTORY)
LINK = Entry(Kind.LINK, content="var/home")
DISK = Mounted("/dev/sda3", "xfs")
TOMB = Mounted("/dev/mapper/immud-home", "ext4")
OLD = (Declared("/etc/fstab:9", "/home", "UUID=1"),)
NEW = (Declared("/etc/fstab:10", "/var/home", "UUID=1"),)
# Where another /etc is shown, and its fstab with it.
OWN_OLD = Declared("/etc/fstab:9", "/home", "UUID=1", own=True)
OWN_NEW = Declared("/etc/fstab:10", "/var/home", "UUID=1", own=True)
STOCK = RowFacts(HOME, path=EMPTY, mounts=(DISK,), declared=OLD)
ADOPTED = RowFacts(HOME, path=LINK, directory=EMPTY, over=DISK, declared=NEW)

MADE = (steps.MakeDirectory("/var/home", 0o755), steps.Sync(("/var",)))
AGAIN = (steps.MountAgain("/home", "/var/home"),)
LINKED = (steps.MakeLink("/.immud.home", "var/home"), steps.Sync(("/",)))
SET = (steps.SetFstab("/home", "/var/home"),)
GONE = (steps.Unmount("/home"),)
END = (
    steps.Exchange("/home", "/.immud.home"),
    steps.Sync(("/etc", "/")),
    steps.RemoveEmpty("/.immud.home"),
    steps.Sync(("/",)),
    steps.ReloadUnits(),
)


def adopting(fact: RowFacts) -> tuple[steps.Step, ...]:
    return adopt_steps((HOME,), Observed((fact,)))


def releasing(fact: RowFacts) -> tuple[steps.Step, ...]:
    return release_steps((HOME,), Observed((fact,)))


def test_it_is_mounted_at_both_places_until_fstab_has_changed() -> None:
    assert adopting(STOCK) == (*MADE, *AGAIN, *LINKED, *SET, *GONE, *END)


def test_what_is_not_mounted_only_changes_in_fstab() -> None:
    assert adopting(replace(STOCK, mounts=())) == (*MADE, *LINKED, *SET, *END)


def test_a_run_that_was_cut_off_is_gone_on_with() -> None:
    there = replace(STOCK, directory=EMPTY)
    assert adopting(there) == (*AGAIN, *LINKED, *SET, *GONE, *END)
    assert adopting(replace(there, over=DISK)) == (*LINKED, *SET, *GONE, *END)
    both = replace(there, over=DISK, declared=NEW)
    assert adopting(both) == (*LINKED, *GONE, *END)
    assert adopting(replace(both, mounts=())) == (*LINKED, *END)
    left = replace(both, mounts=(), beside=LINK)
    assert adopting(left) == (steps.RemoveLink("/.immud.home", "var/home"), *LINKED, *END)
    assert adopting(ADOPTED) == ()
    assert adopting(replace(both, declared=(*NEW, OWN_OLD))) == (*LINKED, *SET, *GONE, *END)


def test_the_directory_is_there_before_fstab_says_so() -> None:
    plan = releasing(ADOPTED)
    assert plan == (
        steps.MakeDirectory("/.immud.home", 0o755),
        steps.Sync(("/",)),
        steps.Exchange("/home", "/.immud.home"),
        steps.MountAgain("/var/home", "/home"),
        steps.SetFstab("/var/home", "/home"),
        steps.Sync(("/", "/etc")),
        steps.Unmount("/var/home"),
        steps.ReloadUnits(),
        steps.RemoveLink("/.immud.home", "var/home"),
        steps.Sync(("/",)),
    )
    rest = replace(ADOPTED, path=EMPTY)
    assert releasing(rest) == plan[3:8]
    assert releasing(replace(rest, mounts=(DISK,))) == plan[4:8]
    assert releasing(replace(rest, mounts=(DISK,), declared=OLD)) == plan[6:8]
    assert releasing(replace(rest, mounts=(DISK,), declared=(*OLD, OWN_NEW))) == plan[4:8]
    assert releasing(replace(rest, mounts=(DISK,), declared=OLD, over=None)) == ()


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"users": ("bash (pid 77)",)}, Busy, "/home is in use.*bash.*login as root"),
        ({"below": ("/home/ada/mnt",)}, Busy, "umount /home/ada/mnt"),
        ({"over": TOMB}, Busy, "immud close"),
        ({"over": TOMB, "mounts": ()}, Busy, "immud close"),
        ({"mounts": (Mounted("systemd-1", "autofs"),)}, OtherFileSystem, "x-systemd.automount"),
        ({"mounts": (DISK, DISK)}, OtherFileSystem, "leave one of them"),
        ({"declared": (*OLD, *NEW)}, OtherFileSystem, "at /home and at /var/home"),
        ({"declared": (*OLD, OWN_OLD, OWN_NEW)}, OtherFileSystem, "at /home and at /var/home"),
        (
            {"declared": (*OLD, Declared("/etc/fstab:11", "/home/ada/mnt", "x"))},
            OtherFileSystem,
            "Change it to /var/home/ada/mnt",
        ),
        ({"directory": FULL}, ImmudError, "/var/home is a directory with something"),
        ({"path": FULL}, OtherFileSystem, "file system of its own"),
        ({"path_parent": Parent("/", same=False, why="x")}, OtherFileSystem, "own"),
        (
            {"declared": (Declared("/etc/systemd/system/home.mount", "/home"),)},
            OtherFileSystem,
            "(?s)a unit has to be renamed.*Where=/var/home.*enable --now var-home.mount",
        ),
        (
            {"partition": Partition("/dev/sda3", "/dev/sda", 3)},
            OtherFileSystem,
            "GPT type.*sfdisk --part-attrs /dev/sda 3 GUID:63; then run this again",
        ),
        (
            {"partition": Partition("/dev/sda3", "/dev/sda", 3, mounted=False), "declared": ()},
            OtherFileSystem,
            "as soon as nothing is in that.*sfdisk --part-attrs /dev/sda 3 GUID:63; then run",
        ),
        (
            {"partition": Partition("/dev/sda3", "/dev/sda", 3), "declared": ()},
            OtherFileSystem,
            "write into /etc/fstab: /dev/sda3 /home auto defaults 0 2; run `systemctl",
        ),
    ],
)
def test_a_refusal_comes_before_the_first_effect(
    changes: dict[str, object], error: type[ImmudError], says: str
) -> None:
    with pytest.raises(error, match=says):
        adopting(replace(STOCK, **changes))  # type: ignore[arg-type]


def test_a_unit_that_was_renamed_is_left_as_it_is() -> None:
    unit = (Declared("/etc/systemd/system/var-home.mount", "/var/home"),)
    renamed = replace(STOCK, mounts=(), directory=EMPTY, over=DISK, declared=unit)
    assert adopting(renamed) == (*LINKED, *END)
    assert adopting(replace(ADOPTED, declared=unit)) == ()
    with pytest.raises(OtherFileSystem, match=r"(?s)Where=/home.*enable --now home\.mount"):
        releasing(replace(ADOPTED, declared=unit))


def test_a_tomb_at_the_target_is_not_taken_for_the_partition() -> None:
    with pytest.raises(Busy, match="immud close"):
        releasing(replace(ADOPTED, over=TOMB, mounts=(DISK,), path=EMPTY))
