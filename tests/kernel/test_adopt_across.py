"""Adopting where /var is another file system: copied, compared, and the original kept."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from immud.adopt import adopt, finish, release
from immud.adopt.steps import Copy, RemoveKept, Step, Unchanged
from immud.early import kernel
from immud.errors import Busy, ImmudError, OtherFileSystem, TargetExists
from tests.support.filesystems import HOME, PLAIN, ROWS, Machine, immutable, layout, snapshot
from tests.support.namespaces import forked
from tests.support.two_disks import TwoDisks, install_tools

PAIRS = (("ext4", "xfs"), ("xfs", "btrfs"), ("btrfs", "ext4"))
KEPT = "/home.immud-adopted"


@pytest.fixture(params=PAIRS, ids="-".join)
def disks(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return TwoDisks(str(tmp_path), *request.param)


@pytest.fixture
def two(tmp_path: Path) -> Machine:
    return TwoDisks(str(tmp_path), "ext4", "xfs")


def content(path: str) -> dict[str, Any]:
    """All but the inode numbers, which a copy has its own of, and XFS's second names for ACLs."""
    return {
        name: (
            *facts[1:-1],
            tuple(x for x in cast("Any", facts[-1]) if not x[0].startswith("trusted.SGI_")),
        )
        for name, facts in snapshot(f"{path}/.").items()
    }


def contents() -> dict[str, dict[str, Any]]:
    return {row.path: content(row.path) for row in PLAIN}


def hidden() -> list[str]:
    return [n for d in ("/", "/var") for n in os.listdir(d) if n.startswith(".immud")]


def test_a_stock_system_is_copied_and_comes_back(disks: Machine) -> None:
    def test() -> None:
        before = contents()
        promised = adopt(PLAIN, ROWS, dry_run=True)
        assert hidden() == []
        done: list[str] = []
        told: list[str] = []
        adopt(PLAIN, ROWS, progress=lambda s: done.append(s.describe()), told=told.append)
        assert done == [step.describe() for step in promised.steps]
        assert f"adopt --finish {HOME.path}" in promised.notes[-1]
        assert "comparing" in told
        assert sorted(layout()) == sorted(row.path for row in PLAIN)
        assert contents() == before
        assert os.path.samefile("/home/ada/notes", "/home/ada/hard link")
        assert content(KEPT) == before["/home"]
        assert os.stat("/var/home").st_dev != os.stat("/").st_dev
        assert hidden() == []
        assert adopt(PLAIN, ROWS).steps == ()
        finish(PLAIN, ROWS)
        assert not [name for name in os.listdir("/") if name.endswith(".immud-adopted")]
        assert contents() == before

        release(PLAIN, ROWS)
        assert layout() == {}
        assert contents() == before
        assert content("/var/home.immud-released") == before["/home"]
        assert hidden() == []
        assert release(PLAIN, ROWS).steps == ()
        finish(PLAIN, ROWS)
        assert sorted(os.listdir("/var")) == sorted({"lib", "log", *os.listdir("/var")} - {"home"})
        assert not [name for name in os.listdir("/var") if name.endswith("-released")]
        assert contents() == before

    disks.boot(test)


def test_on_an_immutable_system(two: Machine) -> None:
    def test() -> None:
        immutable()
        before = content("/home")
        adopt((HOME,), ROWS)
        assert content("/home") == before
        Path("/home/ada/new").touch()
        assert os.path.exists("/var/home/ada/new")
        os.unlink("/home/ada/new")
        release((HOME,), ROWS)
        assert content("/home") == before
        Path("/home/ada/new").touch()

    two.boot(test)


def test_two_subvolumes(tmp_path: Path) -> None:
    def test() -> None:
        before = content("/home")
        adopt((HOME,), ROWS)
        assert layout() == {"/home": "var/home"}
        assert content("/home") == content(KEPT) == before

    machine = Machine(str(tmp_path), "btrfs", subvolumes=("var",))

    def install() -> None:
        machine.mount()
        install_tools(machine.root)

    machine.namespaced(install)
    machine.boot(test)


def before_step(kind: type[Step], act: Callable[[], object]) -> Callable[[Step], None]:
    def progress(step: Step) -> None:
        if isinstance(step, kind):
            act()

    return progress


@contextmanager
def used(use: str) -> Iterator[None]:
    fds = []
    if use == "cwd":
        os.chdir("/home/ada")
    elif use == "file":
        fds.append(os.open("/home/ada/notes", os.O_WRONLY))
    else:
        fds.append(os.open("/home/ada", os.O_DIRECTORY))
    yield
    os.chdir("/")
    for fd in fds:
        os.close(fd)


def test_who_is_in_the_way_is_named(two: Machine) -> None:
    def test() -> None:
        for use in ("file", "directory", "cwd"):
            with used(use), pytest.raises(Busy, match=r"\(pid \d+.*from a login as root"):
                forked(elsewhere)
            assert layout() == {}
            assert hidden() == []
        with open("/home/ada/notes", encoding="utf-8"):  # reading harms nobody
            forked(elsewhere)

    def elsewhere() -> None:
        """Adopt in a process that is not itself in the way."""
        os.chdir("/")
        adopt((HOME,), ROWS)

    two.boot(test)


def test_what_is_written_after_the_comparison_is_not_lost(two: Machine) -> None:
    def test() -> None:
        late = before_step(Unchanged, lambda: Path("/home/ada/late").write_text("late"))
        with pytest.raises(Busy, match=r"(?s)/home changed while.*ada/late"):
            adopt((HOME,), ROWS, progress=late)
        assert layout() == {}
        adopt((HOME,), ROWS)
        assert Path("/home/ada/late").read_text() == "late"

    two.boot(test)


def test_somebody_who_comes_meanwhile_is_named(two: Machine) -> None:
    def test() -> None:
        told, tell = os.pipe()
        pids: list[int] = []

        def come() -> None:
            pid = os.fork()
            if pid == 0:
                os.open("/home/ada/notes", os.O_RDWR)
                os.write(tell, b"x")
                signal.pause()
            os.read(told, 1)
            pids.append(pid)

        with pytest.raises(Busy, match="/home is in use"):
            adopt((HOME,), ROWS, progress=before_step(Unchanged, come))
        assert layout() == {}
        os.kill(pids[0], signal.SIGKILL)
        os.waitpid(pids[0], 0)
        adopt((HOME,), ROWS)

    two.boot(test)


@pytest.mark.parametrize("path", [KEPT, "/var/home", "/var/.immud.home"])
def test_what_is_somebody_else_s_stays(two: Machine, path: str) -> None:
    def test() -> None:
        if path == "/var/.immud.home":
            Path(path).touch()
        else:
            os.makedirs(f"{path}/mine")
        before = contents()
        with pytest.raises(TargetExists, match=path):
            adopt((HOME,), ROWS)
        assert contents() == before
        assert os.path.lexists(path if path.startswith("/var/.") else f"{path}/mine")

    two.boot(test)


def test_a_var_that_is_not_there_after_a_boot_gets_nothing(two: Machine) -> None:
    def test() -> None:
        lines = Path("/etc/fstab").read_text().splitlines(keepends=True)
        Path("/etc/fstab").write_text("".join(lines[:-1]))
        with pytest.raises(OtherFileSystem, match="/etc/fstab first"):
            adopt((HOME,), ROWS)
        Path("/etc/fstab").write_text("".join(lines))
        kernel.mount_setattr("/var", set_=kernel.MOUNT_ATTR_RDONLY)
        with pytest.raises(OtherFileSystem, match="mounted at /var is read-only"):
            adopt((HOME,), ROWS)
        assert hidden() == []

    two.boot(test)


MB = 1 << 20


@contextmanager
def filled(directory: str, left: int) -> Iterator[str]:
    """All but `left` bytes of a file system in use: the file that uses them."""
    path = f"{directory}/filler"
    with open(path, "wb") as file:
        space = os.statvfs(directory)
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - left)
    yield path
    os.unlink(path)


def large(directory: str, count: int) -> None:
    for number in range(count):
        Path(f"{directory}/large{number}").write_bytes(os.urandom(MB))


def test_what_does_not_fit_is_not_begun(two: Machine) -> None:
    def test() -> None:
        large("/home/ada", 8)
        refused = r"of /var for a copy of /home \(8\.\d MiB\): [34]\.\d MiB are free"
        with filled("/var", 4 * MB):
            for dry_run in (True, False):
                with pytest.raises(ImmudError, match=refused):
                    adopt((HOME,), ROWS, dry_run=dry_run)
            assert (layout(), hidden()) == ({}, [])
        # Two that would fit each, and both do not.
        large("/opt", 8)
        with (
            filled("/var", 12 * MB),
            pytest.raises(ImmudError, match=r"/home \(8.*, /opt \(8.*, 16\.\d MiB tog"),
        ):
            adopt(PLAIN, ROWS)
        for number in range(8):
            os.unlink(f"/opt/large{number}")
        adopt((HOME,), ROWS)
        finish((HOME,), ROWS)
        with filled("/", 4 * MB), pytest.raises(ImmudError, match=r"of / for a copy of /var/home"):
            release((HOME,), ROWS)
        assert layout() == {"/home": "var/home"}
        assert hidden() == []
        release((HOME,), ROWS)

    two.boot(test)


def test_where_a_copy_is_that_did_not_fit_after_all(two: Machine) -> None:
    def test() -> None:
        large("/home/ada", 16)
        with ExitStack() as until:
            fill = before_step(
                Copy, lambda: paths.append(until.enter_context(filled("/var", 8 * MB)))
            )
            paths: list[str] = []
            with pytest.raises(
                ImmudError, match=r"(?s)No space left.*\n    rm -r /var/\.immud\.home$"
            ):
                adopt((HOME,), ROWS, progress=fill)
            assert layout() == {}
            assert os.listdir("/var/.immud.home") == ["home"]
            # There is room for what is missing, and not for all of it.
            os.truncate(paths[0], os.stat(paths[0]).st_size - 12 * MB)
            adopt((HOME,), ROWS)
        assert layout() == {"/home": "var/home"}
        finish((HOME,), ROWS)
        for number in range(12):
            os.unlink(f"/home/ada/large{number}")
        kernel.mount_setattr("/", set_=kernel.MOUNT_ATTR_RDONLY)
        late = before_step(Unchanged, lambda: Path("/home/ada/late").write_text("late"))
        with pytest.raises(Busy, match=r"\n    immud unlock -- rm -r /\.immud\.home$"):
            release((HOME,), ROWS, progress=late)

    two.boot(test)


def test_finishing_waits_for_those_who_kept_to_the_original(two: Machine) -> None:
    def elsewhere() -> None:
        os.chdir("/")
        finish((HOME,), ROWS)

    def test() -> None:
        adopt((HOME,), ROWS)
        os.chdir(f"{KEPT}/ada")
        with pytest.raises(Busy, match="working directory"):
            forked(elsewhere)
        os.chdir("/")
        steps = finish((HOME,), ROWS, dry_run=True).steps
        (what,) = [step for step in steps if isinstance(step, RemoveKept)]
        assert what.describe().endswith(f"{KEPT}/ada")
        assert os.path.exists(f"{KEPT}/ada/notes")
        finish((HOME,), ROWS)
        assert not os.path.exists(KEPT)
        assert finish((HOME,), ROWS).steps == ()

    two.boot(test)


def test_finishing_leaves_an_original_without_a_successor(two: Machine) -> None:
    def test() -> None:
        adopt((HOME,), ROWS)
        os.rename("/var/home", "/var/elsewhere")
        assert finish((HOME,), ROWS).steps == ()
        assert os.path.exists(f"{KEPT}/ada/notes")

    two.boot(test)
