"""The planner of adoption, on every layout there can be."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immud.adopt import steps
from immud.adopt.facts import Declared, Entry, Kind, Mounted, Observed, Parent, RowFacts, View
from immud.adopt.facts import beside as beside_of
from immud.adopt.notes import adopt_notes, reboot_due, release_notes
from immud.adopt.plan import adopt_steps, release_steps
from immud.config.layout import SILVERBLUE
from immud.early.plan import Row
from immud.errors import Busy, ImmudError, OtherFileSystem, TargetExists
from tests.unit.adoption import DIRECTORY, FIFO, FILE, LINK, Model

ROWS = (*SILVERBLUE, Row("/data", "var/data", kind="bind"))
HOME = SILVERBLUE[0]
DATA = Entry(Kind.DIRECTORY)

calmly = settings(deadline=None)  # the machine may be busy, and time is not what is tested

ANY = ("absent", "empty", "full", "ours", "absolute", "foreign", "file", "fifo")
STOCK = ("empty", "full")


def put(model: Model, path: str, state: str, row: Row) -> None:
    """Bring `path` into a state; a full directory has a file of its own in it."""
    links = {"ours": row.target, "absolute": row.directory, "foreign": "elsewhere"}
    if state in ("empty", "full"):
        model.nodes[path] = (DIRECTORY, "")
    if state == "full":
        model.nodes[f"{path}/letter"] = (FILE, f"written at {path}")
    if state in links:
        model.nodes[path] = (LINK, links[state])
    if state in ("file", "fifo"):
        model.nodes[path] = (FILE if state == "file" else FIFO, f"written at {path}")


@st.composite
def layouts(draw: st.DrawFn, states: tuple[str, ...] = ANY, anywhere: bool = True) -> Model:
    model = Model()
    for row in ROWS:
        put(model, row.path, draw(st.sampled_from(states)), row)
        if anywhere:
            put(model, row.directory, draw(st.sampled_from(ANY)), row)
            put(model, beside_of(row.path), draw(st.sampled_from(ANY)), row)
        if model.entry(row.path).is_directory and draw(st.booleans()):
            model.mounts[row.path] = row.path
    return model


def one_by_one(model: Model) -> list[tuple[Row, tuple[steps.Step, ...]]]:
    """Each row that can be adopted, with the steps that takes."""
    possible = []
    for row in ROWS:
        try:
            possible.append((row, adopt_steps((row,), model.observed(ROWS))))
        except ImmudError:
            continue
    return possible


def without_mounts(model: Model) -> tuple[object, ...]:
    return (model.nodes, model.files)


@calmly
@given(layouts())
def test_adopting_works_or_is_refused_and_loses_nothing(model: Model) -> None:
    for row, plan in one_by_one(model):
        after = model.run(plan)
        assert after.data() == model.data()
        again = adopt_steps((row,), after.observed(ROWS))
        assert again == (), "a second run has something left to do"


@calmly
@given(layouts())
def test_adopting_reaches_the_new_layout_or_says_why_not(model: Model) -> None:
    for row, plan in one_by_one(model):
        after = model.run(plan).facts(row)
        if row.kind == "bind":
            assert after.mounts[0].of == row.directory
        elif not (after.at_boot or adopt_notes((row,), model.observed(ROWS))):
            assert after.adopted
            assert after.directory.is_directory
            assert not after.missing


@calmly
@given(layouts(), st.data())
def test_an_interrupted_adoption_is_finished_by_the_next(model: Model, data: st.DataObject) -> None:
    for row, plan in one_by_one(model):
        half = model.run(plan[: data.draw(st.integers(0, len(plan)))])
        rest = adopt_steps((row,), half.observed(ROWS))
        assert without_mounts(half.run(rest)) == without_mounts(model.run(plan))


@calmly
@given(layouts(), st.data())
def test_an_interrupted_adoption_can_be_released(model: Model, data: st.DataObject) -> None:
    for row, plan in one_by_one(model):
        half = model.run(plan[: data.draw(st.integers(0, len(plan)))])
        if half.entry(row.path).kind in (Kind.ABSENT, Kind.DIRECTORY, Kind.LINK):
            try:
                back = release_steps((row,), half.observed(ROWS))
            except TargetExists:
                continue
            after = half.run(back)
            assert after.entry(row.path).is_directory
            assert after.data() == model.data()


@calmly
@given(layouts(STOCK, anywhere=False))
def test_releasing_undoes_adopting(model: Model) -> None:
    plan = adopt_steps(ROWS, model.observed(ROWS))
    adopted = model.run(plan)
    back = adopted.run(release_steps(ROWS, adopted.observed(ROWS)))
    added = {f"/usr/local/{name}" for name in SILVERBLUE[4].inside}
    assert {p: n for p, n in back.nodes.items() if p not in added | {"/run/media"}} == model.nodes
    assert back.files == model.files


@calmly
@given(layouts(STOCK, anywhere=False), st.data())
def test_an_interrupted_release_is_finished_by_the_next(model: Model, data: st.DataObject) -> None:
    adopted = model.run(adopt_steps(ROWS, model.observed(ROWS)))
    plan = release_steps(ROWS, adopted.observed(ROWS))
    half = adopted.run(plan[: data.draw(st.integers(0, len(plan)))])
    after = half.run(release_steps(ROWS, half.observed(ROWS)))
    assert without_mounts(after) == without_mounts(adopted.run(plan))
    assert release_steps(ROWS, after.observed(ROWS)) == ()


def observed(fact: RowFacts) -> Observed:
    return Observed((fact,))


STOCK_HOME = RowFacts(HOME, path=DATA)


def test_a_directory_takes_four_steps() -> None:
    assert adopt_steps((HOME,), observed(STOCK_HOME)) == (
        steps.MakeLink("/var/home", "var/home"),
        steps.Sync(("/var",)),
        steps.Exchange("/home", "/var/home"),
        steps.Sync(("/", "/var")),
    )


def test_immud_s_own_mount_goes_last_before_the_exchange() -> None:
    own = Mounted("/dev/sda1", "ext4", own=True, of="/home")
    plan = adopt_steps((HOME,), observed(replace(STOCK_HOME, mounts=(own,))))
    assert plan[2:4] == (steps.Detach("/home", "/home"), steps.Exchange("/home", "/var/home"))
    assert "working directory" in reboot_due(plan, observed(STOCK_HOME))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (
            {"mounts": (Mounted("/dev/sda3", "xfs"),)},
            OtherFileSystem,
            r"/dev/sda3 \(xfs\).*Mount it at /var/home",
        ),
        ({"below": ("/home/ada/mnt",)}, Busy, "umount /home/ada/mnt"),
        ({"over": Mounted("/dev/mapper/tomb", "ext4")}, Busy, "immud close"),
        (
            {"declared": (Declared("/etc/fstab:9", "/home/ada/disk", "/dev/sdb1"),)},
            OtherFileSystem,
            r"/etc/fstab:9 mounts /dev/sdb1.*Change it to /var/home/ada/disk",
        ),
        (
            {"declared": (Declared("/etc/fstab:9", "/var/home", "/dev/sdb1"),)},
            OtherFileSystem,
            "/etc/fstab:9 .*hide",
        ),
        (
            {"directory_parent": Parent("/var", same=False, why="/dev/sda5 is mounted at /var")},
            OtherFileSystem,
            "/dev/sda5 is mounted at /var; that works only on one file system",
        ),
        (
            {"directory_parent": Parent("/var", same=False, why="x", unfit="it is in memory")},
            OtherFileSystem,
            "nothing can be copied there: it is in memory",
        ),
        ({"directory": DATA}, TargetExists, "Nothing was changed"),
        ({"directory": DATA, "path": Entry(Kind.DIRECTORY, empty=True)}, TargetExists, "rmdir"),
        ({"path": Entry(Kind.LINK, content="disk2/home")}, TargetExists, "a link to disk2/home"),
    ],
)
def test_a_refusal_says_what_to_do(
    change: dict[str, object], error: type[ImmudError], says: str
) -> None:
    with pytest.raises(error, match=says):
        adopt_steps((HOME,), observed(replace(STOCK_HOME, **change)))  # type: ignore[arg-type]


def test_the_wrong_place_to_adopt_from_is_refused() -> None:
    seen = observed(STOCK_HOME)
    with pytest.raises(ImmudError, match="login shell"):
        adopt_steps((HOME,), replace(seen, host_namespace=False))
    with pytest.raises(ImmudError, match="journalctl -k"):
        release_steps((HOME,), replace(seen, writable=False))


def test_one_refused_row_means_that_nothing_is_done() -> None:
    srv = RowFacts(SILVERBLUE[2], path=DATA, directory=DATA)
    facts = (RowFacts(SILVERBLUE[1], path=DATA), replace(STOCK_HOME, below=("/home/x",)), srv)
    with pytest.raises(Busy) as caught:
        adopt_steps(SILVERBLUE[:3], Observed(facts))
    first, second, last = str(caught.value).split("\n")
    assert "/home/x" in first
    assert "/var/srv" in second
    assert last.startswith("Nothing was changed.")
    assert last.endswith("What can be done now: immud adopt /opt")


def test_a_tomb_at_home_keeps_release_away() -> None:
    link = Entry(Kind.LINK, content="var/home")
    fact = RowFacts(HOME, link, Entry(Kind.DIRECTORY), over=Mounted("/dev/mapper/x", "ext4"))
    with pytest.raises(Busy, match="close the tomb"):
        release_steps((HOME,), observed(fact))


def test_homes_in_memory_keep_release_away_too() -> None:
    link = Entry(Kind.LINK, content="var/home")
    fact = RowFacts(HOME, link, Entry(Kind.DIRECTORY), over=Mounted("immud-absent", "tmpfs"))
    with pytest.raises(Busy, match="copy from it what is to be kept"):
        release_steps((HOME,), observed(fact))


def test_a_released_directory_stays_writable_on_a_read_only_root() -> None:
    link = Entry(Kind.LINK, content="var/home")
    fact = RowFacts(HOME, link, DATA, path_parent=Parent("/", read_only=True))
    assert release_steps((HOME,), observed(fact))[-1] == steps.Attach("/home", "/home")


def test_media_with_an_installer_s_directories_is_explained() -> None:
    media = next(row for row in SILVERBLUE if row.path == "/media")
    fact = RowFacts(media, path=DATA)
    assert adopt_steps((media,), observed(fact)) == ()
    (note,) = adopt_notes((media,), observed(fact))
    assert "it is not empty" in note
    cdrom = replace(fact, declared=(Declared("/etc/fstab:7", "/media/cdrom0"),))
    assert "/etc/fstab:7" in adopt_notes((media,), observed(cdrom))[0]


def test_tmp_waits_for_the_boot() -> None:
    tmp = SILVERBLUE[-1]
    fact = RowFacts(tmp, path=DATA)
    assert adopt_steps((tmp,), observed(fact)) == ()
    assert "next boot" in adopt_notes((tmp,), observed(fact))[0]


def test_leaving_tmp_asks_for_a_reboot_now() -> None:
    tmp = SILVERBLUE[-1]
    link = Entry(Kind.LINK, content=tmp.target)
    fact = RowFacts(tmp, path=link, directory=DATA, over=Mounted("tmpfs", "tmpfs"))
    plan = release_steps((tmp,), observed(fact))
    assert steps.MakeDirectory("/.immud.tmp", 0o1777) in plan
    assert "Reboot now" in reboot_due(plan, observed(fact))
    assert "empty directory" in release_notes((tmp,), observed(fact))[0]


def test_services_with_a_view_of_their_own_are_named() -> None:
    seen = Observed((STOCK_HOME,), views=(View("/home", 412, "systemd-logind.service"),))
    plan = adopt_steps((HOME,), seen)
    assert "systemd-logind.service (process 412)" in reboot_due(plan, seen)
    assert reboot_due((), seen) == ""
