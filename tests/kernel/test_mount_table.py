"""Reading the mount table quickly and from mountinfo: the two agree, on real mounts.

The quick way needs Linux 6.8, and authors 6.14. On an older kernel what is tested is that
neither is claimed, and that mountinfo serves.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from immud.early import kernel, mountinfo
from immud.early.mountinfo import MountEntry
from immud.model import Breach
from immud.tripwire.rule import Expected, Seen, Tree, judge
from immud.watch import statmount, table
from immud.watch.authors import Act, Authors
from immud.watch.table import Newcomers, Reading
from tests.support.namespaces import in_namespace

RDONLY, NOSUID, NODEV = 1, 2, 4
VERSION = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
HAS_STATMOUNT, HAS_AUTHORS = VERSION >= (6, 8), VERSION >= (6, 14)


def plain(entry: MountEntry | None) -> tuple[str, ...] | None:
    """What both ways have to say alike: numbers differ, and so does the rest of the options."""
    if entry is None:
        return None
    how = "ro" if "ro" in entry.super_options.split(",") else "rw"
    return (entry.dev, entry.root, entry.target, entry.options, entry.fstype, entry.source, how)


def slowly() -> None:
    """From here on as on a kernel without statmount."""
    os.environ["IMMUD_MOUNTINFO"] = "1"
    table.is_quick.cache_clear()
    assert not table.is_quick()


def tree(place: Path) -> list[str]:
    """A few directories below a tmpfs, names that mountinfo escapes among them."""
    root = str(place / "tree")
    os.mkdir(root)
    kernel.mount("source with space", root, "tmpfs", 0)
    paths = [f"{root}/{name}" for name in ("a", "b c", "d\\e", "f\tg", "a/deep", "\udce4")]
    for path in paths:
        os.makedirs(os.fsencode(path))
    return [root, *paths]


def test_what_the_kernel_can_is_known() -> None:
    assert table.is_quick() == HAS_STATMOUNT
    authors = Authors()
    assert authors.available == HAS_AUTHORS
    authors.close()


@in_namespace
def test_every_mount_there_is_looks_the_same_both_ways(tmp_path: Path) -> None:
    tree(tmp_path)
    if not HAS_STATMOUNT:
        with pytest.raises(OSError, match="not implemented"):
            statmount.listmount()
        return
    by_number = {entry.id: entry for entry in mountinfo.read()}
    numbers = statmount.listmount()
    assert len(numbers) == len(by_number)
    for number in numbers:
        assert plain(statmount.statmount(number)) == plain(by_number[statmount.old_number(number)])


@in_namespace
def test_attributes_have_the_words_of_mountinfo(tmp_path: Path) -> None:
    place = str(tmp_path)
    kernel.mount("tmpfs", place, "tmpfs", 0)
    assert table.top(place)
    if not HAS_STATMOUNT:
        return
    for attributes in (0, RDONLY, NOSUID | NODEV, 0x08, 0x10, 0x20, 0x80, 0x10 | 0x80, 0x200000):
        clear = 0xF | 0x70 | 0x80 | 0x200000
        kernel.mount_setattr(place, clear=clear, set_=attributes)
        number, is_root = statmount.mount_at(place)
        assert is_root
        entry = mountinfo.top(mountinfo.read(), place)
        assert entry
        assert statmount.statmount(number).options == entry.options


@in_namespace
def test_random_stacks_of_mounts(tmp_path: Path) -> None:
    """What is on top, what is hidden and what is not there, after any sequence of changes."""
    paths = tree(tmp_path)
    random = Random(4)  # noqa: S311 - to be repeatable
    for _ in range(60):
        path = random.choice(paths[1:])
        act = random.randrange(5)
        try:
            if act < 2:
                kernel.mount("tmpfs", path, "tmpfs", random.choice((0, kernel.MS_RDONLY)))
                for below in paths:
                    if below.startswith(path + "/"):
                        os.makedirs(below, exist_ok=True)
            elif act == 2:
                kernel.mount(random.choice(paths), path, None, kernel.MS_BIND)
            elif act == 3:
                kernel.umount2(path, kernel.MNT_DETACH)
            else:
                kernel.mount_setattr(path, set_=RDONLY)
        except OSError:
            continue  # nothing there, or in a read-only place: as good as any other state
        entries = mountinfo.read()
        quick = Reading()
        visible = quick.visible(paths)
        for each in paths:
            assert plain(mountinfo.top(visible, each)) == plain(mountinfo.top(entries, each)), each
            stack = [plain(entry) for entry in quick.stack(each)]
            assert not HAS_STATMOUNT or stack[:1] == [
                plain(entry) for entry in (mountinfo.top(entries, each),) if entry
            ]
    slowly()
    again = Reading()
    for each in paths:
        assert plain(again.top(each)) == plain(mountinfo.top(visible, each))


@in_namespace
def test_a_stack_has_what_is_hidden(tmp_path: Path) -> None:
    place = str(tmp_path)
    for name in ("lower", "middle", "upper"):
        kernel.mount(name, place, "tmpfs", 0)
    if HAS_STATMOUNT:
        found = [entry.source for entry in Reading().stack(place)]
        assert found == ["upper", "middle", "lower"]
    slowly()
    assert {entry.source for entry in Reading().stack(place)} == {"upper", "middle", "lower"}


@pytest.mark.parametrize("quick", [True, False])
@in_namespace
def test_newcomers_are_found_once_and_boring_ones_never(tmp_path: Path, quick: bool) -> None:
    paths = tree(tmp_path)
    if not quick:
        slowly()
    asked: list[str] = []

    def boring(_dev: str, _root: str, target: str) -> bool:
        asked.append(target)
        return not target.startswith(paths[0]) or target == paths[1]

    newcomers = Newcomers(boring)
    assert newcomers.all(Reading()) == {paths[0]}
    asked.clear()
    for path in paths[1:3]:
        kernel.mount("tmpfs", path, "tmpfs", 0)
    found = newcomers.fresh(Reading())
    assert found - {paths[0]} == {paths[2]}
    # No mount that was there before was thought about again.
    assert set(asked) <= {*paths[:3]}
    asked.clear()
    assert newcomers.fresh(Reading()) <= {paths[0], paths[2]}
    assert set(asked) <= {*paths[:3]}


@in_namespace
def test_a_mount_that_was_made_before_and_moved_later_is_found(tmp_path: Path) -> None:
    """Its number says nothing then; fanotify names it, and a look at all of it finds it."""
    first, second = tree(tmp_path)[1:3]
    authors = Authors()
    newcomers = Newcomers(lambda _dev, _root, target: target != second)
    kernel.mount("early", first, "tmpfs", 0)
    assert newcomers.all(Reading()) == set()
    kernel.mount(first, second, None, kernel.MS_MOVE)
    if HAS_STATMOUNT:
        assert newcomers.fresh(Reading()) == set()
    acts = [act.mount for act in authors.take() if act.attached]
    assert newcomers.fresh(Reading(), acts) == ({second} if HAS_AUTHORS else set())
    assert newcomers.all(Reading()) == {second}


@in_namespace
def test_who_mounted_and_who_unmounted(tmp_path: Path) -> None:
    authors = Authors()
    place = str(tmp_path)
    subprocess.run(["mount", "-t", "tmpfs", "x", place], check=True)
    mounted = table.top(place)
    assert mounted
    if not HAS_AUTHORS:
        assert authors.take() == []
        return
    (attached,) = authors.take()
    assert attached[:2] == (True, mounted.id)
    assert attached.pid not in (0, os.getpid())
    kernel.umount2(place)
    assert authors.take() == [Act(False, mounted.id, os.getpid())]
    kernel.mount("tmpfs", place, "tmpfs", 0)
    authors.take()
    # An attribute has no author: nothing is told, and nothing is made up.
    kernel.mount_setattr(place, set_=RDONLY)
    assert authors.take() == []
    authors.close()
    assert authors.take() == []


@in_namespace
def test_acts_that_are_too_many_are_said_to_be_lost(tmp_path: Path) -> None:
    authors = Authors()
    with open("/proc/sys/fs/fanotify/max_queued_events", encoding="ascii") as file:
        limit = int(file.read())
    for _ in range(limit // 2 + 1):
        kernel.mount("tmpfs", str(tmp_path), "tmpfs", 0)
        kernel.umount2(str(tmp_path))
    acts = authors.take()
    assert authors.lost == HAS_AUTHORS
    assert len(acts) == (limit if HAS_AUTHORS else 0)
    assert authors.take() == []
    assert not authors.lost


def cost(work: Callable[[], object]) -> float:
    """Seconds of processor time a call takes, the least of several."""
    taken = []
    for _ in range(5):
        began = os.times()
        for _ in range(200):
            work()
        ended = os.times()
        taken.append(ended.user + ended.system - began.user - began.system)
    return min(taken) / 200


@in_namespace
def test_a_quick_look_costs_the_same_with_two_thousand_mounts_more(tmp_path: Path) -> None:
    """With a wide margin, on a busy machine; tests/bench has the figure."""
    root, place = tree(tmp_path)[:2]
    newcomers = Newcomers(lambda *_: True)
    newcomers.all(Reading())

    def look() -> None:
        reading = Reading()
        newcomers.fresh(reading)
        reading.visible((root, place, "/proc"))

    few = cost(look)
    for number in range(2000):
        os.mkdir(f"{root}/{number}")
        kernel.mount(root, f"{root}/{number}", None, kernel.MS_BIND)
    newcomers.fresh(Reading())
    # Without statmount the file is read, and no cost is promised but that it ends.
    assert cost(look) < (3 * few + 0.0005 if HAS_STATMOUNT else 1)


@pytest.mark.parametrize("quick", [True, False])
@in_namespace
def test_the_rule_sees_a_switched_file_system_and_which_mounts_it_has(
    tmp_path: Path, quick: bool
) -> None:
    """Through another mount of it, as fsconfig(2) or a failing disk would: nobody is told."""
    if not quick:
        slowly()
    protected, other = str(tmp_path / "protected"), str(tmp_path / "other")
    os.mkdir(protected)
    os.mkdir(other)
    kernel.mount("tmpfs", protected, "tmpfs", 0)
    kernel.mount(protected, other, None, kernel.MS_BIND)
    kernel.mount_setattr(protected, set_=RDONLY)
    entry = table.top(protected)
    assert entry
    expected = Expected(trees=(Tree(protected, True, entry.dev, entry.root, "rw"),))

    def kinds() -> list[tuple[Breach, str]]:
        seen = Seen(Reading().visible((protected, other)), frozenset({other}))
        return [(broken.kind, broken.path) for broken in judge(expected, seen)]

    assert kinds() == [(Breach.WAY_IN, other)]
    kernel.mount(None, other, None, kernel.MS_REMOUNT | kernel.MS_RDONLY)
    assert kinds() == [(Breach.SUPERBLOCK, protected)]
    kernel.mount(None, other, None, kernel.MS_REMOUNT)
    assert kinds() == [(Breach.WAY_IN, other)]
    kernel.umount2(other)
    assert kinds() == []
    kernel.umount2(protected)
    assert kinds() == [(Breach.UNMOUNTED, protected)]
