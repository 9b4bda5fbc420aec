"""The plan where the two places are on two file systems, in every state a cut can leave."""

from dataclasses import replace

import pytest

from immud.adopt import steps
from immud.adopt.facts import Entry, Kind, Mounted, Observed, Parent, RowFacts
from immud.adopt.notes import adopt_notes
from immud.adopt.plan import adopt_steps, finish_steps, release_steps
from immud.config.layout import SILVERBLUE
from immud.errors import Busy, ImmudError, TargetExists

HOME = SILVERBLUE[0]
FULL = Entry(Kind.DIRECTORY)
EMPTY = Entry(Kind.DIRECTORY, empty=True)
LINK = Entry(Kind.LINK, content="var/home")
VAR = Parent("/var", same=False, why="/dev/sda5 (xfs) is mounted at /var", device=2, elsewhere=True)
STOCK = RowFacts(HOME, path=FULL, path_parent=Parent("/", device=1), directory_parent=VAR)
ADOPTED = replace(STOCK, path=LINK, directory=FULL, kept=FULL)

HIDDEN, COPY, KEPT = "/var/.immud.home", "/var/.immud.home/home", "/home.immud-adopted"
COPIED = (
    steps.Copy("/home", COPY),
    steps.Unchanged("/home", COPY),
    steps.Place(COPY, "/var/home"),
)
LINKED = (steps.MakeLink(KEPT, "var/home"),)
EXCHANGED = (
    steps.Sync(("/",)),
    steps.Exchange("/home", KEPT),
    steps.Sync(("/",)),
    steps.RemoveHidden(HIDDEN),
)


def adopting(**changes: object) -> tuple[steps.Step, ...]:
    return adopt_steps((HOME,), Observed((replace(STOCK, **changes),)))  # type: ignore[arg-type]


def releasing(**changes: object) -> tuple[steps.Step, ...]:
    return release_steps((HOME,), Observed((replace(ADOPTED, **changes),)))  # type: ignore[arg-type]


def finishing(fact: RowFacts) -> tuple[steps.Step, ...]:
    return finish_steps((HOME,), Observed((fact,)))


def test_it_is_copied_compared_placed_and_exchanged() -> None:
    assert adopting() == (steps.MakeHidden(HIDDEN), *COPIED, *LINKED, *EXCHANGED)


def test_two_subvolumes_are_two_file_systems() -> None:
    assert adopting(directory_parent=Parent("/var", device=2)) == adopting()


def test_half_a_copy_is_gone_on_with() -> None:
    assert adopting(hidden=FULL) == (*COPIED, *LINKED, *EXCHANGED)


def test_a_copy_in_its_place_is_taken_back_and_brought_up_to_date() -> None:
    back = steps.TakeBack("/var/home", COPY)
    half = {"hidden": FULL, "placed": True, "directory": FULL}
    assert adopting(**half) == (back, *COPIED, *LINKED, *EXCHANGED)
    assert adopting(**half, kept=LINK) == (back, *COPIED, *EXCHANGED)


def test_after_the_exchange_only_the_record_is_left() -> None:
    done = {"path": LINK, "directory": FULL, "kept": FULL}
    assert adopting(**done, hidden=FULL, placed=True) == (steps.RemoveHidden(HIDDEN),)
    assert adopting(**done) == ()


def test_of_an_empty_directory_nothing_is_kept() -> None:
    assert adopting(path=EMPTY)[-3:-1] == (steps.RemoveEmpty(KEPT), steps.Sync(("/",)))


def test_immud_s_own_mount_goes_last() -> None:
    own = Mounted("/dev/sda1", "ext4", own=True, of="/home")
    plan = adopting(mounts=(own,))
    at = plan.index(steps.Detach("/home", "/home"))
    assert plan[at + 1] == steps.Exchange("/home", KEPT)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"users": ("bash (pid 77, session-3.scope)",)}, Busy, "bash.*from a login as root"),
        ({"directory": FULL}, TargetExists, "/var/home is a directory with something"),
        ({"hidden": Entry(Kind.OTHER, what="a file")}, TargetExists, f"{HIDDEN} is a file"),
        ({"kept": FULL}, TargetExists, f"{KEPT} is still there"),
        ({"kept": Entry(Kind.LINK, content="x")}, TargetExists, f"{KEPT} is still there"),
        ({"over": Mounted("/dev/mapper/tomb", "ext4")}, Busy, "immud close"),
        ({"below": ("/home/ada/mnt",)}, Busy, "umount /home/ada/mnt"),
        ({"mounts": (Mounted("/dev/sda3", "xfs"),)}, ImmudError, "file system of its own"),
    ],
)
def test_a_refusal_comes_before_the_first_effect(
    changes: dict[str, object], error: type[ImmudError], says: str
) -> None:
    with pytest.raises(error, match=says):
        adopting(**changes)


def test_the_way_back_is_a_copy_as_well() -> None:
    hidden, copy = "/.immud.home", "/.immud.home/home"
    rest = (
        steps.Copy("/var/home", copy),
        steps.Unchanged("/var/home", copy),
        steps.Exchange("/home", copy),
        steps.Sync(("/", hidden)),
        steps.SetAside("/var/home", "/var/home.immud-released"),
        steps.RemoveLink(copy, "var/home"),
        steps.RemoveHidden(hidden),
    )
    assert releasing() == (steps.MakeHidden(hidden), *rest)
    assert releasing(beside=FULL) == rest
    assert releasing(path=FULL, beside=FULL, copied=LINK) == rest[4:]
    assert releasing(path=FULL, beside=FULL, copied=LINK, directory=Entry()) == rest[5:]


def test_of_what_is_empty_nothing_is_set_aside() -> None:
    plan = releasing(directory=EMPTY, set_aside=EMPTY)
    assert plan[0] == steps.RemoveEmpty("/var/home.immud-released")
    assert plan[6:8] == (steps.RemoveEmpty("/var/home"), steps.Sync(("/var",)))


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"users": ("bash (pid 77)",)}, Busy, "/var/home is in use.*bash"),
        ({"inside": ("/var/home/ada/mnt",)}, Busy, "umount /var/home/ada/mnt"),
        ({"set_aside": FULL}, TargetExists, "/var/home.immud-released is still there"),
    ],
)
def test_a_release_is_refused_before_the_first_effect(
    changes: dict[str, object], error: type[ImmudError], says: str
) -> None:
    with pytest.raises(error, match=says):
        releasing(**changes)


def test_an_adoption_after_half_a_release_finishes_that_first() -> None:
    plan = adopting(path=FULL, directory=FULL, beside=FULL, copied=LINK)
    assert plan[0] == steps.SetAside("/var/home", "/var/home.immud-released")
    assert plan[3:] == adopting()


def test_finishing_names_what_it_removes() -> None:
    holds = (f"{KEPT}/ada", f"{KEPT}/bob")
    plan = finishing(replace(ADOPTED, holds=holds))
    assert plan == (steps.Idle(KEPT), steps.RemoveKept(KEPT, holds), steps.Sync(("/",)))
    assert all(name in plan[1].describe() for name in holds)


def test_finishing_keeps_what_has_no_successor() -> None:
    assert finishing(replace(ADOPTED, directory=Entry())) == ()
    assert finishing(replace(ADOPTED, path=Entry(Kind.LINK, content="elsewhere"))) == ()
    assert finishing(replace(STOCK, kept=FULL)) == ()
    with pytest.raises(Busy, match="vi"):
        finishing(replace(ADOPTED, keepers=("vi (pid 3)",)))


def test_the_note_says_what_is_kept_and_how_it_goes() -> None:
    (note,) = adopt_notes((HOME,), Observed((STOCK,)))
    assert KEPT in note
    assert "immud adopt --finish /home" in note
    assert adopt_notes((HOME,), Observed((replace(STOCK, path=EMPTY),))) == ()
