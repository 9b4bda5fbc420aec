"""Which files of hooks.d are run: those that root alone can have put there."""

import os
from pathlib import Path

import pytest

from immud.early import kernel
from immud.errors import ImmudError
from immud.integration import hooks
from immud.integration.hooks import Event
from tests.support.namespaces import in_namespace


def directory() -> Path:
    """hooks.d/opened on a file system of its own: /tmp is everybody's."""
    kernel.mount("tmpfs", "/mnt", "tmpfs", 0, "mode=0755")
    where = Path("/mnt/hooks.d/opened")
    where.mkdir(parents=True)
    return where


def put(path: Path, mode: int = 0o755, uid: int = 0) -> Path:
    path.write_text("#!/bin/sh\n")
    os.chown(path, uid, 0)
    path.chmod(mode)
    return path


@in_namespace
def test_in_the_order_of_their_names() -> None:
    where = directory()
    for name in ("20-b", "10-a", ".hidden", "10-a~", "30-c.dpkg-old", "9-z"):
        put(where / name)
    put(where / "40-switched-off", mode=0o644)
    (where / "directory").mkdir()
    (where / "50-link").symlink_to("/mnt/real")
    put(Path("/mnt/real"))
    found, refused = hooks.find(Event.OPENED, "/mnt/hooks.d")
    assert [os.path.basename(path) for path in found] == ["10-a", "20-b", "50-link", "9-z"]
    assert refused == ()
    assert hooks.find(Event.CLOSED, "/mnt/hooks.d") == ((), ())


@in_namespace
def test_what_others_could_change_is_refused() -> None:
    where = directory()
    put(where / "1-theirs", uid=1000)
    put(where / "2-writable", mode=0o775)
    put(where / "3-good")
    (where / "4-nowhere").symlink_to("missing")
    found, refused = hooks.find(Event.OPENED, "/mnt/hooks.d")
    assert [os.path.basename(path) for path in found] == ["3-good"]
    assert "belongs to user 1000: chown root" in refused[0]
    assert "(mode 0775): chmod go-w" in refused[1]
    assert "4-nowhere is not run" in refused[2]


@in_namespace
def test_the_whole_way_there_is_looked_at() -> None:
    good = put(directory() / "good")
    assert hooks.is_hook(str(good))
    home = Path("/mnt/alice")
    home.mkdir()
    os.chown(home, 1000, 1000)
    # Both ends are root's, and the link between them is not.
    (home / "between").symlink_to(good)
    through = good.with_name("through")
    through.symlink_to(home / "between")
    with pytest.raises(ImmudError, match="/mnt/alice belongs to user 1000"):
        hooks.is_hook(str(through))
    upwards = good.with_name("upwards")
    upwards.symlink_to("../../alice/../hooks.d/opened/good")
    with pytest.raises(ImmudError, match="/mnt/alice belongs to user 1000"):
        hooks.is_hook(str(upwards))
    turning = good.with_name("turning")
    turning.symlink_to("turning")
    with pytest.raises(ImmudError, match="too many links"):
        hooks.is_hook(str(turning))
    good.parent.chmod(0o777)
    with pytest.raises(ImmudError, match=r"others may write to /mnt/hooks\.d/opened"):
        hooks.is_hook(str(good))
