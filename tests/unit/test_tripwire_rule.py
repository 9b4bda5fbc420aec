"""The rule of the tripwire: what is a breach, and what is an ordinary day."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immud.config.layout import TABLES
from immud.early.facts import Facts
from immud.early.mountinfo import MountEntry
from immud.early.plan import BootPlan, Row
from immud.model import Breach, LinkFact
from immud.tripwire.expect import expect
from immud.tripwire.places import is_declared
from immud.tripwire.rule import Broken, Expected, Seen, Tomb, judge, judge_other

DISK = "8:1"
HOME = Row("/home", "var/home")
PLAN = BootPlan(rows=(HOME, Row("/opt", "var/opt")))
FACTS = Facts(
    layout="done",
    mounts=(
        ("/", 1, "ro", "/"),
        ("/usr", 2, "ro", "/usr"),
        ("/etc", 3, "rw", "/etc"),
        ("/var", 4, "rw", "/var"),
        ("/opt", 5, "rw", "/opt"),
    ),
    links=(("/home", "var/home", "adopted", "link"), ("/opt", "var/opt", "unadopted", "link")),
    trees=tuple((path, DISK, path, "rw") for path in ("/", "/usr", "/etc", "/var", "/opt")),
)
LINKS = (
    LinkFact("/home", "var/home", "adopted", "link"),
    LinkFact("/opt", "var/opt", "unadopted", "link"),
)
EXPECTED = expect(PLAN, FACTS, LINKS)
TOMB = Tomb("home", "/var/home", "254:0")


def entry(
    target: str, how: str = "rw", *, dev: str = DISK, root: str = "", **more: str
) -> MountEntry:
    options = {"options": f"{how},relatime", "super_options": "rw", "fstype": "ext4", **more}
    number = hash((target, dev, root)) & 0xFFFF | 0x10000
    return MountEntry(
        id=number,
        parent=0,
        dev=dev,
        root=root or target,
        target=target,
        source="/dev/sda1",
        **options,
    )


def table(*entries: MountEntry) -> tuple[MountEntry, ...]:
    """Entries as `Reading.visible` gives them: each on the nearest above it."""
    by_path = {e.target: e for e in entries}
    for each in by_path.values():
        above = [
            p for p in by_path if p != each.target and each.target.startswith(p.rstrip("/") + "/")
        ]
        each.parent = by_path[max(above, key=len)].id if above else 0
    return tuple(by_path.values())


def layout() -> tuple[MountEntry, ...]:
    return (entry("/", "ro"), entry("/usr", "ro"), entry("/etc"), entry("/var"), entry("/opt"))


GOOD_LINKS = {"/home": ("link", "var/home"), "/opt": ("directory", "")}


def found(
    *others: MountEntry,
    expected: Expected = EXPECTED,
    links: dict[str, tuple[str, str]] | None = None,
    declared: tuple[str, ...] = (),
    gone: tuple[str, ...] = (),
) -> tuple[Broken, ...]:
    """What the rule says of the layout with `others` over it, and without what is `gone`."""
    kept = [e for e in layout() if e.target not in gone]
    seen = Seen(
        mounts=table(*kept, *others),
        others=frozenset(e.target for e in others),
        declared=frozenset(declared),
        links=GOOD_LINKS | (links or {}),
    )
    return judge(expected, seen)


def kinds(*others: MountEntry, **how: object) -> list[tuple[Breach, str]]:
    return [(broken.kind, broken.path) for broken in found(*others, **how)]  # type: ignore[arg-type]


def test_the_layout_as_the_boot_left_it_is_no_breach() -> None:
    assert found() == ()


@pytest.mark.parametrize("path", ["/", "/usr"])
def test_a_protected_mount_that_is_writable(path: str) -> None:
    assert kinds(entry(path)) == [(Breach.WRITABLE, path)]


@pytest.mark.parametrize("path", ["/usr", "/etc", "/var", "/opt"])
def test_a_mount_that_is_gone(path: str) -> None:
    assert kinds(gone=(path,)) == [(Breach.UNMOUNTED, path)]


def test_something_else_in_its_place() -> None:
    assert kinds(entry("/usr", "ro", dev="0:50", root="/")) == [(Breach.OVERMOUNTED, "/usr")]
    assert kinds(entry("/etc", root="/var/other")) == [(Breach.OVERMOUNTED, "/etc")]
    # The same tree once more is no harm, and phase 1 leaves that after a crash.
    assert kinds(entry("/usr", "ro")) == []


def test_a_mount_over_a_part_of_usr_and_only_there() -> None:
    tmpfs = {"dev": "0:50", "root": "/", "fstype": "tmpfs"}
    assert kinds(entry("/usr/share/man", "ro", **tmpfs)) == [(Breach.OVERMOUNTED, "/usr/share/man")]
    assert kinds(entry("/etc/cups", **tmpfs)) == []
    assert kinds(entry("/usr/share/man", "ro", **tmpfs), declared=("/usr/share/man",)) == []


def test_a_switched_superblock_is_told_once_for_all_its_mounts() -> None:
    switched = [
        entry(e.target, e.options[:2], super_options="ro,errors=remount-ro") for e in layout()
    ]
    assert kinds(*switched) == [(Breach.SUPERBLOCK, "/")]


def test_links() -> None:
    def said(kind: str, content: str = "") -> list[tuple[Breach, str]]:
        return kinds(links={"/home": (kind, content)})

    assert said("link", "/var/home/") == []
    assert said("link", "var/else") == [(Breach.LINK, "/home")]
    for kind in ("absent", "empty", "other"):
        assert said(kind) == [(Breach.LINK, "/home")]
    # What was released is a directory again; what could not be looked at says nothing.
    assert said("directory") == said("unknown") == []
    # So is an empty one, which release keeps writable.
    released = expect(PLAN, FACTS, (replace(LINKS[0], state="unadopted"), LINKS[1]))
    empty = {"/home": ("empty", "")}
    assert kinds(entry("/home"), expected=released, links=empty) == []
    elsewhere = entry("/home", root="/srv")
    assert (Breach.LINK, "/home") in kinds(elsewhere, expected=released, links=empty)


def test_a_writable_mount_belongs_where_mounts_belong() -> None:
    other = {"dev": "8:17", "root": "/"}
    assert kinds(entry("/data", **other)) == [(Breach.NEW_MOUNT, "/data")]
    assert kinds(entry("/data", "ro", **other)) == []
    assert kinds(entry("/data", super_options="ro", **other)) == []
    assert kinds(entry("/data", **other), declared=("/data",)) == []
    assert (
        kinds(entry("/data", **other), expected=expect(PLAN, FACTS, LINKS, allow=["/data"])) == []
    )
    for place in ("/var/lib/docker/overlay2/x/merged", "/run/media/ann/STICK", "/boot/efi"):
        assert kinds(entry(place, **other)) == []


@pytest.mark.parametrize("root", ["/", "/usr", "/usr/bin", "/boot"])
@pytest.mark.parametrize("place", ["/mnt", "/run/x", "/data"])
def test_a_protected_tree_is_writable_nowhere(root: str, place: str) -> None:
    assert kinds(entry(place, root=root)) == [(Breach.WAY_IN, place)]
    assert kinds(entry(place, "ro", root=root)) == []
    # Declaring it makes a part of the tree one's own business, and never a whole one.
    whole = root in ("/", "/usr")
    assert bool(kinds(entry(place, root=root), declared=(place,))) == whole


@pytest.mark.parametrize("root", ["/var", "/var/lib/x", "/etc", "/home/ann", "/opt"])
def test_what_is_writable_anyway_may_be_seen_elsewhere(root: str) -> None:
    assert kinds(entry("/run/x", root=root)) == []


def test_a_tomb_keeps_nosuid_and_nodev_wherever_it_is_seen() -> None:
    expected = replace(EXPECTED, tombs=(TOMB,))
    good, bad = "rw,nosuid,nodev,relatime", "rw,nodev,relatime"
    tomb = {"dev": "254:0", "root": "/"}
    assert kinds(entry("/var/home", options=good, **tomb), expected=expected) == []
    assert kinds(entry("/var/home", options=bad, **tomb), expected=expected) == [
        (Breach.TOMB, "/var/home")
    ]
    copy = entry("/run/copy", options=bad, **tomb)
    home = entry("/var/home", options=good, **tomb)
    assert kinds(home, copy, expected=expected) == [(Breach.TOMB, "/run/copy")]
    assert "without nosuid" in found(home, copy, expected=expected)[0].actual


def test_in_other_namespaces_only_what_leads_into_a_protected_tree_counts() -> None:
    def other(where: MountEntry) -> Breach | None:
        broken = judge_other(EXPECTED, where, namespace=7)
        return broken.kind if broken else None

    assert other(entry("/usr/share/x", dev="0:50", root="/")) is None
    assert other(entry("/data", dev="0:50", root="/")) is None
    assert other(entry("/srv/inside", root="/usr/lib")) is Breach.WAY_IN


def test_a_row_that_was_adopted_meanwhile_needs_no_mount() -> None:
    adopted = (LINKS[0], LinkFact("/opt", "var/opt", "adopted", "link"))
    paths = [tree.path for tree in expect(PLAN, FACTS, adopted).trees]
    assert paths == ["/", "/usr", "/etc", "/var"]
    # One over which somebody mounted something still does.
    mounted = (LINKS[0], LinkFact("/opt", "var/opt", "mounted", "link"))
    assert "/opt" in [tree.path for tree in expect(PLAN, FACTS, mounted).trees]


def test_without_a_read_only_root_only_usr_is_protected() -> None:
    facts = Facts(
        mounts=FACTS.mounts[1:4], trees=tuple((p, DISK, p, "rw") for p in ("/usr", "/etc", "/var"))
    )
    expected = expect(BootPlan(root=False), facts)
    mounts = table(entry("/"), entry("/usr", "ro"), entry("/etc"), entry("/var"))
    assert judge(expected, Seen(mounts=mounts)) == ()
    data = entry("/data", root="/boot")
    assert judge(expected, Seen(table(*mounts, data), frozenset({"/data"}))) == (
        Broken(
            Breach.NEW_MOUNT,
            "/data",
            "no writable mount",
            "ext4 from /dev/sda1 (8:1 /boot), writable",
        ),
    )


def test_a_usr_of_its_own_and_facts_without_trees() -> None:
    """Of a boot whose phase 1 was an older immud: attributes are still watched."""
    expected = expect(PLAN, Facts(mounts=FACTS.mounts, links=FACTS.links), LINKS)
    assert kinds(expected=expected) == []
    assert kinds(entry("/usr"), expected=expected) == [(Breach.WRITABLE, "/usr")]


# What may be mounted on a day with containers, desktops and services: never a breach.
silverblue = expect(
    BootPlan(rows=TABLES["silverblue"]),
    Facts(mounts=FACTS.mounts[:4], trees=FACTS.trees[:4]),
    (),
)
places = st.sampled_from(
    [
        *("/proc/sys/fs/binfmt_misc", "/sys/fs/bpf", "/sys/fs/fuse/connections", "/dev/hugepages"),
        *("/run/user/1000", "/run/user/1000/doc", "/run/credentials/x.service", "/run/lock"),
        *("/run/docker/netns/1", "/run/containers/storage/x", "/run/media/ann/STICK", "/tmp"),
        *("/var/lib/docker/overlay2/1/merged", "/var/lib/containers/storage/overlay/1/merged"),
        *("/var/lib/machines/x", "/var/lib/kubelet/pods/1/volumes/x", "/var/home/ann/.cache/x"),
        *("/home", "/root", "/srv", "/opt/x", "/usr/local", "/mnt", "/boot", "/boot/efi", "/efi"),
        *("/sysroot/tmp", "/var/tmp", "/media/x"),
    ]
)


@given(
    st.lists(
        st.builds(
            entry,
            places,
            st.sampled_from(["rw", "ro"]),
            dev=st.sampled_from(["0:40", "0:41", "8:17", DISK]),
            root=st.sampled_from(["/var/lib/x", "/etc/x", "/home/ann", "/opt/y"]),
        ),
        max_size=6,
    )
)
def test_an_ordinary_day(entries: list[MountEntry]) -> None:
    seen = Seen(mounts=table(*layout()[:4], *entries), others=frozenset(e.target for e in entries))
    assert judge(silverblue, seen) == ()


@given(
    places | st.sampled_from(["/data", "/usr/share/x", "/x"]),
    st.sampled_from([DISK, "0:40", TOMB.dev]),
    st.sampled_from(["/", "/usr", "/usr/x", "/var/x", "/boot", "/x"]),
    st.booleans(),
)
def test_what_is_boring_is_never_a_breach(target: str, dev: str, root: str, declared: bool) -> None:
    """Boring mounts are not even looked at, whatever their attributes become later."""
    where = entry(target, dev=dev, root=root)
    for expected in (EXPECTED, replace(EXPECTED, tombs=(TOMB,))):
        if expected.boring(dev, root, target):
            assert judge_other(expected, where, declared=declared) is None
            assert judge_other(expected, where, namespace=7) is None


@pytest.mark.parametrize(
    ("directory", "declared"),
    [
        ("/etc/systemd/system", True),
        ("/usr/local/lib/systemd/system", True),
        ("/usr/lib/systemd/system", True),
        ("/run/systemd/generator", True),
        ("/run/systemd/transient", False),
    ],
)
def test_where_a_mount_is_declared(
    monkeypatch: pytest.MonkeyPatch, directory: str, *, declared: bool
) -> None:
    monkeypatch.setattr("os.path.lexists", lambda path: path == f"{directory}/my-data.mount")
    assert is_declared("/my/data") == declared
    assert not is_declared("/my")
