"""Directories of a tomb at other places, with real mounts, in a namespace of their own."""

import os
import signal
from pathlib import Path

import pytest

from immud.early import kernel, mountinfo
from immud.early.mountinfo import top
from immud.tomb.fs import binds, mounts
from tests.support.namespaces import in_namespace

UID = 1  # daemon, whom every Debian has; its home is made another below


class Tomb:
    """A file system mounted at a place of its own, and a host beside it."""

    def __init__(self, path: Path, flags: int = 0) -> None:
        self.where, self.host = path / "tomb", path / "host"
        self.where.mkdir()
        self.host.mkdir()
        kernel.mount("tmpfs", str(self.where), "tmpfs", flags, "mode=0755")
        entry = top(mountinfo.read(), str(self.where))
        assert entry
        self.device = entry.dev
        (self.where / "alice/docs").mkdir(parents=True)
        (self.where / "alice/docs/letter").write_text("dear")

    def attach(self, *pairs: tuple[str, Path], hooks: str | bool = False) -> list[tuple[str, str]]:
        wanted = [(path, str(target)) for path, target in pairs]
        notes = binds._attach(str(self.where), [self.device], wanted, hooks)
        return [(code, text) for _, code, text in notes]

    def mounts(self) -> int:
        return sum(entry.dev == self.device for entry in mountinfo.read())


@in_namespace
def test_shown_elsewhere_and_taken_away_with_the_tomb(tmp_path: Path) -> None:
    tomb = Tomb(tmp_path)
    there, made, file = tomb.host / "there", tomb.host / "made", tomb.host / "file"
    there.mkdir()
    file.touch()
    pairs = (("alice/docs", there), ("alice", made), ("alice/docs/letter", file))
    assert tomb.attach(*pairs) == []
    assert (there / "letter").read_text() == "dear"
    assert (made / "docs/letter").read_text() == "dear"
    assert file.read_text() == "dear"
    for target in (there, made, file):
        entry = top(mountinfo.read(), str(target))
        assert entry
        assert {"nosuid", "nodev", "rw"} <= set(entry.options.split(","))
    # Said again, nothing is stacked.
    assert tomb.attach(*pairs) == []
    assert tomb.mounts() == 4
    assert mounts.take_away([tomb.device]) == 4
    assert there.exists(), "what was there stays"
    assert not made.exists(), "what was made goes"
    assert file.read_text() == ""


@in_namespace
def test_a_link_put_in_the_way_leads_to_no_other_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns a directory above the bind exchanges it with a link as it is unmounted."""
    tomb = Tomb(tmp_path)
    theirs, system = tomb.host / "theirs", tomb.host / "system"
    (theirs / "usr").mkdir(parents=True)
    (system / "usr").mkdir(parents=True)
    kernel.mount("tmpfs", str(system / "usr"), "tmpfs", 0)
    assert tomb.attach(("alice/docs", theirs / "usr")) == []
    link = tomb.host / "link"
    link.symlink_to(system)
    read, times = mountinfo.read, iter(range(3))

    def race(*args: int | None, **named: int | None) -> tuple[mountinfo.MountEntry, ...]:
        entries = read(*args, **named)
        if next(times, None) is not None:
            kernel.renameat2(str(theirs), str(link), kernel.RENAME_EXCHANGE)
        return entries

    monkeypatch.setattr(mountinfo, "read", race)
    mounts.take_away([tomb.device], kernel.MNT_DETACH)
    monkeypatch.undo()
    assert top(mountinfo.read(), str(system / "usr")), "the system's own is where it was"
    assert not tomb.mounts()


@in_namespace
def test_as_read_only_as_the_tomb(tmp_path: Path) -> None:
    tomb = Tomb(tmp_path)
    kernel.mount_setattr(str(tomb.where), set_=kernel.MOUNT_ATTR_RDONLY)
    assert tomb.attach(("alice", tomb.host / "x")) == []
    with pytest.raises(OSError, match="Read-only"):
        (tomb.host / "x/new").touch()


@in_namespace
def test_who_mounts_on_one_does_not_mount_on_the_other(tmp_path: Path) -> None:
    kernel.mount_setattr("/", propagation=kernel.MS_SHARED, recursive=True)
    tomb = Tomb(tmp_path)
    assert tomb.attach(("alice", tomb.host / "x")) == []
    kernel.mount("tmpfs", str(tomb.where / "alice/docs"), "tmpfs", 0)
    assert (tomb.host / "x/docs/letter").read_text() == "dear"


@in_namespace
def test_all_or_nothing_for_each(tmp_path: Path) -> None:
    tomb = Tomb(tmp_path)
    (tomb.where / "file").touch()
    (tomb.where / "out").symlink_to("/etc")
    os.mkfifo(tomb.where / "pipe")
    host = tomb.host
    (host / "file").touch()
    (host / "link").symlink_to(host)
    (host / "full").mkdir()
    (host / "full/old").touch()
    (host / "taken").mkdir()
    kernel.mount("tmpfs", str(host / "taken"), "tmpfs", 0)
    notes = tomb.attach(
        ("missing", host / "a"),
        ("out", host / "b"),
        ("out/ssh", host / "c"),
        ("pipe", host / "d"),
        ("alice", host / "file"),
        ("file", host / "new file"),
        ("alice", host / "link"),
        ("alice", host / "link/x"),
        ("alice", host / "nowhere/x"),
        ("alice", host / "taken"),
        ("alice", tomb.where / "x"),
        ("alice", host / "full"),
        ("alice", host / "good"),
    )
    assert [code for code, _ in notes] == ["bind-failed"] * 11 + ["bind-hides-files"]
    for (_, text), why in zip(
        notes,
        (
            *("No such file", "is, or goes through, a link", "is, or goes through, a link"),
            *("neither a directory nor a file", "the other is not", "make an empty one"),
            *("behind a link", "behind a link", "No such file", "mounted there already"),
            *("on the tomb itself", "something of its own"),
        ),
        strict=True,
    ):
        assert why in text, text
    assert tomb.mounts() == 3
    assert (host / "good/docs/letter").exists()
    mounts.take_away([tomb.device])
    assert sorted(os.listdir(host)) == ["file", "full", "link", "taken"]
    assert (host / "full/old").exists()


@in_namespace
def test_what_somebody_put_into_it_is_not_removed(tmp_path: Path) -> None:
    tomb = Tomb(tmp_path)
    made = tomb.host / "made"
    assert tomb.attach(("alice", made)) == []
    kernel.umount2(str(made), kernel.MNT_DETACH)
    (made / "written meanwhile").touch()
    assert tomb.attach(("alice", made))[0][0] == "bind-hides-files"
    mounts.take_away([tomb.device])
    assert (made / "written meanwhile").exists()


@in_namespace
def test_taken_away_in_every_namespace(tmp_path: Path) -> None:
    tomb = Tomb(tmp_path)
    assert tomb.attach(("alice/docs", tomb.host / "x")) == []
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        kernel.unshare()
        os.write(writing, b".")
        signal.pause()
    os.read(reading, 1)
    assert sum(entry.dev == tomb.device for entry in mountinfo.read(pid)) == 2
    mounts.take_away([tomb.device], kernel.MNT_DETACH)
    worker = os.fork()
    if worker == 0:
        mounts.take_away_elsewhere([tomb.device], kernel.MNT_DETACH)
        os._exit(0)
    os.waitpid(worker, 0)
    assert not any(entry.dev == tomb.device for entry in mountinfo.read(pid))
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def _with_home(tomb: Tomb, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user, whom this machine's own passwd(5) knows by another one."""
    found = binds.pwd.getpwuid(UID)
    home = tomb.host / "home"
    home.mkdir()
    os.chown(home, UID, UID)
    changed = binds.pwd.struct_passwd((*found[:5], str(home), found[6]))
    monkeypatch.setattr(binds.pwd, "getpwnam", {found.pw_name: changed}.__getitem__)
    monkeypatch.setattr(binds.pwd, "getpwuid", {UID: changed}.__getitem__)
    return home


@in_namespace
def test_the_tomb_s_own_binds(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        tomb = Tomb(tmp_path)
        home = _with_home(tomb, monkeypatch)
        (tomb.where / "bind-hooks").write_text(
            "alice/docs docs\n../x y\nalice .ssh\nalice evil/x\n"
        )
        (tomb.where / "exec-hooks").write_text("#!/bin/sh\ntouch /run/executed\n")
        (tomb.host / "outside").mkdir()
        (home / "evil").symlink_to("../outside")
        assert [code for code, _ in tomb.attach()] == ["exec-hooks", "bind-hooks"]
        assert tomb.mounts() == 1, "nobody has allowed it"
        os.chown(tomb.where / "alice", UID, UID)
        for hooks in (True, "daemon"):
            notes = tomb.attach(hooks=hooks)
            assert [code for code, _ in notes] == ["exec-hooks", "bind-failed", "bind-failed"]
            assert (home / "docs/letter").read_text() == "dear"
            assert (home / ".ssh/docs/letter").read_text() == "dear"
            assert tomb.mounts() == 3
        mounts.take_away([tomb.device])
        assert sorted(os.listdir(home)) == ["evil"]
        assert os.listdir(tomb.host / "outside") == []


@in_namespace
def test_whose_home_has_to_be_known(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        tomb = Tomb(tmp_path)
        home = _with_home(tomb, monkeypatch)
        (tomb.where / "bind-hooks").write_text("alice docs\n")
        for hooks, why in (("nobody-here", "no user nobody-here"), (True, "0 users have")):
            ((_, text),) = tomb.attach(hooks=hooks)
            assert why in text
        for name, uid in (("a", UID), ("b", UID + 1)):
            (tomb.where / name).mkdir()
            os.chown(tomb.where / name, uid, uid)
        ((_, text),) = tomb.attach(hooks=True)
        assert "2 users have" in text
        os.chown(home, 0, 0)
        ((_, text),) = tomb.attach(hooks="daemon")
        assert "not a directory that belongs to daemon" in text
        assert tomb.mounts() == 1
