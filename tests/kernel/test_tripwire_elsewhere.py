"""Looking into real mount namespaces of other processes, and putting an attribute back there."""

import asyncio
import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from immud.child import in_child
from immud.early import kernel, mountinfo, namespaces
from immud.tripwire import elsewhere
from immud.tripwire.relock import set_elsewhere
from immud.tripwire.rule import Expected, Tree
from tests.support.namespaces import in_namespace
from tests.support.process import standing

_INSIDE = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0
for target, flags in zip(sys.argv[1::2], sys.argv[2::2]):
    source = target.partition('=')
    if source[1]:
        assert libc.mount(source[0].encode(), source[2].encode(), None, 0x1000, None) == 0
    assert libc.mount(None, (source[2] or target).encode(), None, int(flags), None) == 0
"""
WRITABLE = str(kernel.MS_REMOUNT | kernel.MS_BIND)


def process(*remounts: str) -> AbstractContextManager[int]:
    """A process with a mount namespace of its own: (target or SOURCE=TARGET, flags) pairs."""
    return standing(_INSIDE, *remounts)


def protect(place: Path) -> tuple[str, Expected]:
    """A protected tree, and what is expected of it."""
    path = str(place / "protected")
    os.mkdir(path)
    kernel.mount("tmpfs", path, "tmpfs", 0)
    os.mkdir(f"{path}/inside")
    kernel.mount_setattr(path, set_=kernel.MOUNT_ATTR_RDONLY)
    entry = mountinfo.top(mountinfo.read(), path)
    assert entry
    return path, Expected(trees=(Tree(path, True, entry.dev, entry.root, "rw"),))


def survey(expected: Expected, leases: Path, *, thorough: bool = False) -> list[tuple[object, ...]]:
    """Kind, path and namespace of each breach, as the daemon gets them from its child."""
    sights = asyncio.run(in_child(elsewhere.survey, expected, thorough, str(leases)))
    return [(sight[0], sight[1], sight[4]) for sight in sights]


@in_namespace
def test_a_namespace_that_may_write_is_told_with_its_process(tmp_path: Path) -> None:
    path, expected = protect(tmp_path)
    leases = tmp_path / "leases"
    with process(), process("/", WRITABLE):
        assert survey(expected, leases) == []
        with process(path, WRITABLE) as pid:
            namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            assert survey(expected, leases) == [("writable", path, namespace)]
            (sight,) = asyncio.run(in_child(elsewhere.survey, expected, True, str(leases)))
            assert sight[5:7] == (pid, Path(f"/proc/{pid}/comm").read_text().strip())
        assert survey(expected, leases) == []


@in_namespace
def test_a_lease_is_writable_on_purpose(tmp_path: Path) -> None:
    path, expected = protect(tmp_path)
    leases = tmp_path / "leases"
    with process(path, WRITABLE) as pid:
        namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
        (leases / "1").mkdir(parents=True)
        (leases / "torn").mkdir()
        (leases / "1" / "mnt-ns").write_text(f"{namespace}1\n")
        assert len(survey(expected, leases, thorough=True)) == 1
        (leases / "1" / "mnt-ns").write_text(f"{namespace}\n")
        assert survey(expected, leases, thorough=True) == []
        assert namespaces.is_leased(namespace, pid, str(leases))


@in_namespace
def test_a_writable_view_of_a_part_is_found_by_the_thorough_look(tmp_path: Path) -> None:
    path, expected = protect(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    leases = tmp_path / "leases"
    with process(f"{path}/inside={other}", WRITABLE):
        assert survey(expected, leases) == []
        assert [sight[:2] for sight in survey(expected, leases, thorough=True)] == [
            ("way-in", str(other))
        ]


@in_namespace
def test_another_tree_at_the_same_path_is_nobody_s_business(tmp_path: Path) -> None:
    path, expected = protect(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    kernel.mount("tmpfs", str(other), "tmpfs", 0)
    with process(f"{other}={path}", WRITABLE):
        assert survey(expected, tmp_path / "leases", thorough=True) == []


@in_namespace
def test_put_back_in_that_namespace_alone(tmp_path: Path) -> None:
    path, expected = protect(tmp_path)
    with process(path, WRITABLE) as pid:
        (sight,) = survey(expected, tmp_path)
        namespace = int(str(sight[2]))
        with pytest.raises(ProcessLookupError):
            asyncio.run(in_child(set_elsewhere, pid, namespace + 1, path, 1))
        assert survey(expected, tmp_path) == [sight]
        asyncio.run(in_child(set_elsewhere, pid, namespace, path, kernel.MOUNT_ATTR_RDONLY))
        assert survey(expected, tmp_path) == []
