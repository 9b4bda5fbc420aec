"""Deciding the steps of phase 1, on machines that exist only as values."""

from hypothesis import given
from hypothesis import strategies as st

from immud.early.mountinfo import MountEntry
from immud.early.observe import Observed
from immud.early.plan import BootPlan, Row
from immud.early.steps import Resolution, Step, resolve

HOME = Row("/home", "var/home")
TMP = Row("/tmp", "sysroot/tmp", mode=0o1777)
LOCAL = Row("/usr/local", "../var/usrlocal", inside=("bin", "lib"))
TABLE = (HOME, Row("/root", "var/roothome", mode=0o700), LOCAL, Row("/media", "run/media"), TMP)

KINDS = ("absent", "link", "empty", "directory", "other", "unknown")


def mounted(*targets: str, number: int = 2) -> tuple[MountEntry, ...]:
    """A mount table with / and binds of it; a target ending in `!` is read-only."""
    root = MountEntry(id=1, parent=0, dev="8:1", root="/", target="/", options="rw")
    entries = [root]
    for target in targets:
        path = target.rstrip("!")
        options = "ro" if target.endswith("!") else "rw"
        if path == "/":
            entries[0] = MountEntry(id=1, parent=0, dev="8:1", root="/", target="/", options="ro")
            continue
        below = [e for e in entries if path.startswith(e.target.rstrip("/") + "/")]
        parent = max(below, key=lambda e: len(e.target))
        number += 1
        entries.append(
            MountEntry(
                id=number, parent=parent.id, dev="8:1", root=path, target=path, options=options
            )
        )
    return tuple(entries)


def observed(
    row: Row, kind: str, content: str = "", target: str = "absent", **more: object
) -> Observed:
    paths = {row.path: (kind, content)} | dict.fromkeys(row.directories, (target, ""))
    return Observed(**{"mounts": mounted(), "paths": paths, **more})  # type: ignore[arg-type]


def outcome(found: Resolution) -> list[tuple[str, str]]:
    """The steps but those every system takes."""
    base = ("/usr", "/etc", "/var", "/")
    return [(step.op, step.target) for step in found.steps if step.target not in base]


def test_the_base_comes_in_order_and_the_root_last() -> None:
    steps = resolve(BootPlan(), Observed(mounts=mounted())).steps
    assert steps == (
        Step("attach", "/usr", "/usr", readonly=True),
        Step("attach", "/etc", "/etc"),
        Step("attach", "/var", "/var"),
        Step("readonly", "/", readonly=True),
    )


def test_what_is_in_place_needs_no_step() -> None:
    there = Observed(mounts=mounted("/!", "/usr!", "/etc", "/var"))
    assert resolve(BootPlan(), there).steps == ()


def test_a_partition_of_its_own_is_left_as_it_is() -> None:
    table = (
        *mounted(),
        MountEntry(id=9, parent=1, dev="8:2", root="/", target="/var", options="rw"),
    )
    steps = resolve(BootPlan(), Observed(mounts=table)).steps
    assert "/var" not in [step.target for step in steps]


def test_a_row_in_each_state() -> None:
    plan = BootPlan(rows=(HOME,))

    def of(kind: str, content: str = "", **more: object) -> tuple[str, list[tuple[str, str]]]:
        found = resolve(plan, observed(HOME, kind, content, **more))
        return found.links[0][2], outcome(found)

    assert of("absent") == ("adopted", [("directory", "/var/home"), ("link", "/home")])
    assert of("empty") == ("adopted", [("directory", "/var/home"), ("relink", "/home")])
    assert of("empty", target="directory") == ("adopted", [("relink", "/home")])
    assert of("directory") == ("unadopted", [("attach", "/home")])
    assert of("link", "var/home") == ("adopted", [("directory", "/var/home")])
    assert of("link", "var/home", target="empty") == ("adopted", [])
    assert of("link", "/var/home/", target="empty") == ("adopted", [])
    assert of("link", "elsewhere") == ("foreign", [])
    assert of("other") == ("foreign", [])
    assert of("directory", fstab=("/home",)) == ("blocked", [])
    assert of("directory", fstab=("/home/alice",)) == ("blocked", [("attach", "/home")])
    for kind in ("absent", "empty", "directory"):
        assert of(kind, units=("/home",)) == ("blocked", [])
    assert of("directory", mounts=mounted("/home")) == ("unadopted", [])
    assert of("directory", mounts=mounted("/home!")) == ("unadopted", [("attach", "/home")])
    assert of("empty", mounts=mounted("/home")) == ("unadopted", [])


def test_a_file_system_of_its_own_is_nobody_elses_business() -> None:
    home = MountEntry(id=9, parent=1, dev="8:2", root="/", target="/home", options="rw")
    found = resolve(BootPlan(rows=(HOME,)), observed(HOME, "directory", mounts=(*mounted(), home)))
    assert found.links[0][2] == "mounted"
    assert outcome(found) == []


def test_links_inside_usr_come_before_it_is_read_only() -> None:
    steps = resolve(BootPlan(rows=(LOCAL,)), observed(LOCAL, "absent")).steps
    order = [(step.op, step.target) for step in steps]
    assert order.index(("link", "/usr/local")) < order.index(("attach", "/usr"))
    assert order.index(("attach", "/var")) < order.index(("directory", "/var/usrlocal"))


def test_another_usr_gets_the_local_tree_of_var() -> None:
    plan = BootPlan(usr="LABEL=usr", rows=(LOCAL,))
    found = resolve(plan, observed(LOCAL, "directory", target="directory"))
    assert found.links[0][2] == "bound"
    assert outcome(found) == [("attach", "/usr/local")]


def test_tmp_is_swapped_only_where_nothing_is_behind_the_link() -> None:
    plan = BootPlan(rows=(TMP,))
    assert outcome(resolve(plan, observed(TMP, "directory"))) == [
        ("swap", "/tmp"),
        ("tmpfs", "/sysroot/tmp"),
    ]
    taken = resolve(plan, observed(TMP, "directory", target="directory"))
    assert outcome(taken) == [("attach", "/tmp")]
    kept = resolve(plan, observed(TMP, "directory", tmp_mount=True))
    assert (kept.links[0][2], outcome(kept)) == ("tmpfs", [])


def test_the_configuration_stays_the_root_file_systems_own() -> None:
    steps = resolve(BootPlan(etc="/data/etc"), Observed(mounts=mounted())).steps
    order = [(step.op, step.target) for step in steps]
    assert order.index(("attach", "/etc")) < order.index(("attach", "/etc/immud"))


def test_what_cannot_be_adopted_says_what_to_do() -> None:
    plan = BootPlan(rows=(HOME,))
    (problem,) = resolve(plan, observed(HOME, "directory")).problems
    assert problem[:2] == ("notice", "unadopted")
    assert "immud adopt /home" in problem[2]
    (problem,) = resolve(plan, observed(HOME, "directory", fstab=("/home/data",))).problems
    assert "/var/home/data" in problem[2]
    (problem,) = resolve(plan, observed(HOME, "empty", units=("/home",))).problems
    assert "/etc/fstab" not in problem[2]
    assert "immud adopt /home" in problem[2]


rows = st.lists(st.sampled_from(TABLE), unique_by=lambda row: row.path).map(tuple)
places = st.sampled_from(
    ["/usr", "/usr!", "/etc", "/etc!", "/var", "/var!", "/home", "/home!", "/root", "/tmp"]
)


@st.composite
def machines(draw: st.DrawFn) -> tuple[BootPlan, Observed]:
    table = draw(rows)
    targets = sorted(draw(st.lists(places, unique_by=lambda t: t.rstrip("!"))), key=len)
    paths = {}
    for row in table:
        # nothing but a directory can be mounted on
        on = any(target.rstrip("!") == row.path for target in targets)
        kind = draw(st.sampled_from(("empty", "directory") if on else KINDS))
        content = draw(st.sampled_from([row.target, row.directory, "elsewhere"]))
        paths[row.path] = (kind, content if kind == "link" else "")
        for directory in row.directories:
            paths[directory] = (draw(st.sampled_from(KINDS)), "")
    sources = st.sampled_from(["LABEL=x", "/data"])
    plan = BootPlan(
        usr=draw(st.just("/usr") | sources),
        etc=draw(st.just("/etc") | sources),
        var=draw(st.just("/var") | sources),
        rows=table,
        root=draw(st.booleans()),
    )
    fstab = draw(st.lists(st.sampled_from(["/home", "/home/alice", "/media/cdrom0"])))
    return plan, Observed(
        mounts=mounted(*targets),
        paths=paths,
        fstab=tuple(fstab),
        units=tuple(draw(st.lists(st.sampled_from(["/home", "/root"])))),
        placed=draw(st.frozensets(st.sampled_from(["/usr", "/etc", "/var"]))),
        tmp_mount=draw(st.booleans()),
    )


@given(machines())
def test_any_machine_gets_a_plan_that_loses_nothing(machine: tuple[BootPlan, Observed]) -> None:
    plan, seen = machine
    found = resolve(plan, seen)
    ops = [step.op for step in found.steps]
    # / turns read-only last, or not at all
    assert "readonly" not in ops[:-1]
    assert len(found.links) == len(plan.rows)
    assert len(set(found.steps)) == len(found.steps)
    for step in found.steps:
        assert step.describe()
        kind = seen.paths.get(step.target, ("absent", ""))[0]
        # no step replaces what holds something, at / or anywhere
        if step.op == "link":
            assert kind == "absent"
        if step.op == "relink":
            assert kind == "empty"
        if step.op == "attach" and step.source != step.target and kind == "directory":
            assert step.target == "/usr/local", "a bind would hide what is there"
    # every directory that stays behind on a read-only / is kept writable
    kept = {step.target for step in found.steps if step.op == "attach"}
    there = {entry.target for entry in seen.mounts if not entry.read_only}
    for path, _, state, _ in found.links:
        if state == "unadopted":
            assert path in kept | there
