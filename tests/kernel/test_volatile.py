"""The volatile fallback, made for real in a namespace of the test's own."""

import asyncio
import os
import signal
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from immud.early import kernel, mountinfo
from immud.early.mountinfo import top
from immud.model import TombConfig
from immud.tomb import holders
from immud.tomb.absence import absent, fallback, volatile
from immud.tomb.absence.abandoned import Abandoned
from immud.tomb.absence.absent import Home
from immud.tomb.absence.fallback import Fallback
from immud.tomb.absence.managers import UserManagers
from immud.tomb.fs import mounting, mounts
from immud.tomb.fs.nesting import Nest
from immud.tomb.holders import Holders
from immud.watch.table import Reading
from tests.kernel.test_nesting import nests, open_
from tests.kernel.test_tomb import loop_device, make_image, process
from tests.support.namespaces import ChildKilled, forked, in_namespace

ALICE = Home("alice", 1000, 1001)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a tomb would go, on a system with a user and something in /etc/skel."""
    for name in ("var/home", "skel/.config/deep"):
        (tmp_path / name).mkdir(parents=True)
    skeleton = tmp_path / "skel"
    (skeleton / ".bashrc").write_text("alias ll='ls -l'\n")
    (skeleton / ".config/deep/run").write_text("#!/bin/sh\n")
    (skeleton / ".config/deep/run").chmod(0o4750)
    (skeleton / "link").symlink_to("/etc/shadow")
    os.mkfifo(skeleton / "fifo")
    users = f"root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::{tmp_path}/var/home/alice:/bin/sh\n"
    (tmp_path / "passwd").write_text(users)
    monkeypatch.setattr(volatile, "LOCK", str(tmp_path / "run/lock"))
    monkeypatch.setattr(volatile, "DATABASE", str(tmp_path / "passwd"))
    return tmp_path / "var/home"


def ensure(place: Path, configured: str = "volatile", size: str = "4M") -> str:
    mode, homes = volatile.decide(str(place), configured, True)
    made = mode == "volatile" and volatile.put(str(place), size, homes, "lost\n", [])
    assert made is (mode == "volatile")
    return mode


def waiting(place: Path, on_return: str = "wait") -> Fallback:
    config = TombConfig("home", absent="volatile", on_return=on_return)
    managers = UserManagers(lambda: None)
    return Fallback(config, *nests(place), managers, lambda: None)


def ext4(node: str) -> Callable[[], int]:
    return partial(mounts.build, node, "ext4", [])


def described(path: Path) -> tuple[int, int, str]:
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.filemode(found.st_mode)


@in_namespace
def test_homes_are_private_and_made_from_the_skeleton(place: Path) -> None:
    tree = volatile.build("4M", (ALICE,), "lost\n", str(place.parent.parent / "skel"))
    kernel.move_mount(tree, str(place))
    assert described(place) == (0, 0, "drwxr-xr-x")
    assert described(place / "alice") == (1000, 1001, "drwx------")
    assert described(place / "alice/.bashrc") == (1000, 1001, "-rw-r--r--")
    # nothing in a skeleton makes anybody somebody else
    assert described(place / "alice/.config/deep/run") == (1000, 1001, "-rwxr-x---")
    assert described(place / "alice/link") == (1000, 1001, "lrwxrwxrwx")
    assert os.readlink(place / "alice/link") == "/etc/shadow"
    assert not (place / "alice/fifo").exists()
    assert (place / "alice" / volatile.NOTE).read_text() == "lost\n"
    entry = top(mountinfo.read(), str(place))
    assert entry
    assert absent.ours(entry)
    assert {"nosuid", "nodev"} <= set(entry.options.split(","))


@in_namespace
def test_a_place_that_is_one_home_is_that_person_s(place: Path) -> None:
    tree = volatile.build("4M", (Home("", 1000, 1001),), "lost\n", str(place))
    kernel.move_mount(tree, str(place))
    assert described(place) == (1000, 1001, "drwx------")
    assert described(place / volatile.NOTE) == (1000, 1001, "-rw-r--r--")


@in_namespace
def test_its_size_and_its_inodes_have_a_limit(place: Path) -> None:
    assert ensure(place, size="1M") == "volatile"
    with pytest.raises(OSError, match="No space"):
        (place / "alice/big").write_bytes(bytes(2 << 20))
    (place / "alice/big").unlink()
    # 1024, less those of the homes
    for number in range(1000):
        (place / f"alice/{number}").touch()
    with pytest.raises(OSError, match="No space"):
        _ = [(place / f"alice/more-{number}").touch() for number in range(30)]


@in_namespace
def test_made_once_and_never_over_something_else(place: Path) -> None:
    assert ensure(place) == "volatile"
    (place / "alice/letter").write_text("dear")
    for _ in range(20):
        assert ensure(place) == ""
    assert not volatile.put(str(place), "4M", [], "lost\n", [])
    assert (place / "alice/letter").read_text() == "dear"
    assert len([e for e in mountinfo.read() if e.target == str(place)]) == 1
    # a tomb over it
    kernel.mount("tmpfs", str(place), "tmpfs", 0)
    assert ensure(place) == ""
    kernel.umount2(str(place))
    assert (place / "alice/letter").read_text() == "dear"


@in_namespace
def test_a_tomb_that_is_open_inside_is_not_hidden_by_it(place: Path) -> None:
    outer, inner = nests(place, place / "alice")
    config = TombConfig("home", absent="volatile")
    fallback = Fallback(config, outer, UserManagers(lambda: None), lambda: None)

    def mounted(nest: Nest) -> list[str]:
        return [e.target for e in mountinfo.read() if e.target == nest.volume.target]

    async def scene() -> None:
        await open_(inner)
        fallback.ensure()
        await fallback.settled()
        assert fallback.mode == "volatile"
        assert mounted(outer), fallback.problems(is_open=False)
        assert mounted(inner) == [], "as when the outer tomb is mounted"
        assert inner.uprooted(), "so its owner mounts it again"
        await open_(inner)
        # And not before it is known that something is to be mounted.
        fallback.ensure()
        await fallback.settled()
        assert not inner.uprooted()
        kernel.umount2(inner.volume.target)
        assert mounted(inner) == []

    asyncio.run(scene())


@in_namespace
def test_left_without_a_tomb_it_is_known_until_it_is_unmounted(place: Path) -> None:
    assert ensure(place) == "volatile"
    elsewhere = place.parent / "elsewhere"
    elsewhere.mkdir()
    kernel.mount(str(place), str(elsewhere), None, kernel.MS_BIND)
    after_all = Abandoned()
    after_all.start({str(place)})
    assert after_all.places == ()
    left = Abandoned()
    left.start(set())
    assert left.places == (str(elsewhere), str(place))
    kernel.umount2(str(elsewhere))
    assert left.look(set(), Reading())
    assert left.places == (str(place),)
    # What is mounted over it is what people meet.
    kernel.mount("tmpfs", str(place), "tmpfs", 0)
    assert left.look(set(), Reading())
    assert left.places == ()
    kernel.umount2(str(place))
    assert left.look(set(), Reading())
    assert left.places == (str(place),)
    assert not left.look(set(), Reading())
    assert left.look({str(place)}, Reading())
    assert left.look(set(), Reading())
    kernel.umount2(str(place))
    assert left.look(set(), Reading())
    assert left.problems() == ()


@in_namespace
def test_killed_before_it_is_in_place_there_is_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        kill = partial(os.kill, os.getpid(), signal.SIGKILL)
        monkeypatch.setattr(kernel, "move_mount", lambda *_, **__: kill())
        ensure(place)

    with pytest.raises(ChildKilled):
        forked(killed)
    assert top(mountinfo.read(), str(place)) is None
    assert list(place.iterdir()) == []
    # and nobody has to wait for the lock of the dead
    assert ensure(place) == "volatile"


@in_namespace
def test_what_is_in_the_directory_decides(place: Path) -> None:
    (place / "alice").mkdir()
    assert ensure(place, configured="") == "directory"
    assert top(mountinfo.read(), str(place)) is None
    (place / "alice").rmdir()
    assert ensure(place, configured="") == "volatile"
    assert (place / "alice").is_dir()


@in_namespace
def test_a_directory_that_is_not_there_is_made(place: Path) -> None:
    place.rmdir()
    assert ensure(place) == "volatile"
    assert (place / "alice").is_dir()


@in_namespace
def test_what_cannot_be_made_whole_is_not_put_in_place(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.parent.parent / "skel/huge").write_bytes(bytes(3 << 20))
    with pytest.raises(OSError, match="No space"):
        volatile.build("2M", (ALICE,), "lost\n", str(place.parent.parent / "skel"))
    assert list(place.iterdir()) == []


@in_namespace
def test_a_tomb_is_not_mounted_over_somebody(place: Path) -> None:
    assert ensure(place) == "volatile"
    entry = absent.fallback(mountinfo.read(), str(place))
    guard = waiting(place).guard()
    with loop_device(make_image(place.parent.parent / "image")) as node:
        with process("os.chdir(sys.argv[1])", str(place / "alice")) as pid:
            hidden, found = mounting.mount_unheld(ext4(node), str(place), guard, [])
            assert [(who[0], who[4]) for who in found] == [(pid, "cwd")]
            assert top(mountinfo.read(), str(place)) == entry
        hidden, found = mounting.mount_unheld(ext4(node), str(place), guard, [])
        assert (hidden, found) == (True, [])
        assert absent.fallback(mountinfo.read(), str(place)) == entry
        above = top(mountinfo.read(), str(place))
        assert above
        assert above.fstype == "ext4"
        kernel.umount2(str(place))
    assert (place / "alice").is_dir()


@in_namespace
def test_a_directory_s_holders_are_known_by_their_path(place: Path) -> None:
    (place / "alice").mkdir()
    guard = waiting(place).guard()
    with (
        loop_device(make_image(place.parent.parent / "image")) as node,
        process("f = open(sys.argv[1], 'w')", str(place / "alice/file")) as pid,
    ):
        _, found = mounting.mount_unheld(ext4(node), str(place), guard, [])
        assert [(who[0], who[4]) for who in found] == [(pid, "open file")]
        assert top(mountinfo.read(), str(place)) is None


@in_namespace
def test_users_of_what_is_mounted_inside_do_not_hold_it(place: Path) -> None:
    inside, elsewhere = place / "alice", place.parent.parent / "bind"
    inside.mkdir()
    elsewhere.mkdir()
    kernel.mount("tmpfs", str(inside), "tmpfs", 0)
    kernel.mount(str(place), str(elsewhere), None, kernel.MS_BIND)
    guard = waiting(place).guard()
    assert guard
    with process("os.chdir(sys.argv[1])", str(inside)):
        assert holders.scan(*guard) == []
        # and a bind of the directory shows the same one
        with process("os.chdir(sys.argv[1])", str(elsewhere)) as pid:
            assert [who[0] for who in holders.scan(*guard)] == [pid]


@in_namespace
def test_waiting_says_for_whom_and_ends_with_the_last(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure(place)
    monkeypatch.setattr(fallback, "AGAIN", 30)
    told, waits = list[str](), waiting(place)
    guard = waits.guard()
    assert guard

    def says() -> str:
        problems = waits.problems(is_open=True)
        return problems[0].text if problems else ""

    async def wait() -> None:
        free = asyncio.create_task(waits.free(Holders(holders.scan(*guard))))
        async with asyncio.timeout(10):
            for pid in (first, second):
                while says() in ("", *told):
                    await asyncio.sleep(0.05)
                told.append(says())
                os.kill(pid, 9)
            await free

    with (
        process("os.chdir(sys.argv[1])", str(place)) as first,
        process("f = open(sys.argv[1] + '/f', 'w')", str(place / "alice")) as second,
    ):
        asyncio.run(wait())
    assert f"pid {first}" in told[0]
    assert f"pid {second}" in told[0]
    assert f"pid {first}" not in told[-1]
    assert f"pid {second}" in told[-1]
    assert [problem.code for problem in waits.problems(is_open=True)] == []


@in_namespace
def test_who_goes_elsewhere_is_noticed_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure(place)
    monkeypatch.setattr(fallback, "AGAIN", 0.2)
    waits = waiting(place)
    guard = waits.guard()
    assert guard
    wanders = "os.chdir(sys.argv[1]); print('ready', flush=True); time.sleep(1); os.chdir('/')"
    with process(wanders, str(place)):
        found = Holders(holders.scan(*guard))
        assert found
        asyncio.run(asyncio.wait_for(waits.free(found), 10))


def test_over_waits_for_nobody(place: Path) -> None:
    assert waiting(place, "over").guard() is None


@in_namespace
def test_it_may_be_told_not_to_wait_any_longer(place: Path) -> None:
    ensure(place)
    waits = waiting(place)
    guard = waits.guard()
    assert guard

    async def wait() -> None:
        free = asyncio.create_task(waits.free(Holders(holders.scan(*guard))))
        async with asyncio.timeout(5):
            while not waits.problems(is_open=True):
                await asyncio.sleep(0.02)
            waits.heed(TombConfig("home", on_return="over"))
            await free

    with process("os.chdir(sys.argv[1])", str(place)):
        asyncio.run(wait())
    assert waits.guard() is None
    assert waits.problems(is_open=True) == ()
