"""Where a tomb is mounted, with a directory of somebody's own on the way."""

import os
from pathlib import Path

import pytest

from immud.early import kernel, mountinfo
from immud.errors import ImmudError
from immud.tomb.absence import volatile
from immud.tomb.fs import mounts, place
from tests.support.namespaces import in_namespace

ALICE = 1000
HOST = Path("/mnt")


def host() -> None:
    """Directories above which nobody but root can change anything, and one of alice's."""
    kernel.mount("tmpfs", str(HOST), "tmpfs", 0, "mode=0755")
    for name in ("alice", "cron.d", "data"):
        (HOST / name).mkdir(0o755)
    os.chown(HOST / "alice", ALICE, ALICE)


def put(target: Path) -> bool:
    tree = mounts.build("tmpfs", "tmpfs", [])
    try:
        return mounts.place(tree, str(target))
    finally:
        os.close(tree)


@in_namespace
def test_links_are_followed_where_root_alone_can_make_them() -> None:
    host()
    (HOST / "root-s").symlink_to("data")
    (HOST / "via").symlink_to("./alice/../alice")
    (HOST / "round").symlink_to("round")
    (HOST / "alice/hers").symlink_to("/mnt/cron.d")
    (HOST / "to-hers").symlink_to("alice/hers")
    for path, settled in {
        "data": "data",
        "root-s": "data",
        "root-s/new/below": "data/new/below",
        "via": "alice",
        "via/hers": "alice/hers",
        "to-hers/x": "to-hers/x",
        "alice/hers": "alice/hers",
        "alice/hers/x": "alice/hers/x",
        "alice/none/hers": "alice/none/hers",
    }.items():
        assert place.settled(str(HOST / path)) == str(HOST / settled), path
    assert place.settled(str(HOST / "round")).startswith(str(HOST / "round"))


@in_namespace
@pytest.mark.parametrize("path", ["secret", "secret/below", "secret/new"])
def test_a_user_s_link_has_nothing_mounted_elsewhere(path: str) -> None:
    host()
    (HOST / "cron.d/below").mkdir()
    (HOST / "alice/secret").symlink_to("/mnt/cron.d")
    before = mountinfo.read()
    target = place.settled(str(HOST / "alice" / path))
    with pytest.raises(ImmudError, match="namei -l /mnt/alice/secret"):
        put(Path(target))
    with pytest.raises(ImmudError, match="a link that others than root"):
        volatile.decide(target, "volatile", True)
    with pytest.raises(ImmudError, match="a link that others than root"):
        volatile.put(target, "1M", [], "", [])
    assert [e.target for e in mountinfo.read()] == [e.target for e in before]
    assert sorted(os.listdir(HOST / "cron.d")) == ["below"], "nothing is made there either"


@in_namespace
def test_what_is_missing_is_made() -> None:
    host()
    there = HOST / "alice/one/two"
    assert put(there) is False
    assert mountinfo.top(mountinfo.read(), str(there))
    (there / "letter").touch()
    assert put(there) is True, "and what is hidden is said"
