"""Phase 1 on a real file system: what it makes, what it leaves alone, that it is idempotent."""

import os
import signal
from pathlib import Path

import pytest

# Everything phase 1 loads late, because below the new root there is nothing to load from.
from immud.early import (
    kernel,
    main,
    observe,
)
from immud.early.plan import BootPlan, Row
from tests.support.namespaces import forked
from tests.support.phase1 import SILVERBLUE, booted, refuses, table


def test_a_stock_system_becomes_immutable(tmp_path: Path) -> None:
    def check() -> None:
        made = main.lay_out()
        assert made.layout == "done", made.problems
        assert refuses("/usr/x")
        assert refuses("/usr/bin/x")
        assert refuses("/x")
        assert not refuses("/etc/x")
        assert not refuses("/var/x")
        # what a person has there already stays there, and writable
        assert not refuses("/home/alice/x")
        assert not refuses("/root/x")
        assert not refuses("/usr/local/bin/x")
        assert Path("/home/alice/letter").read_text() == "dear alice\n"
        # and what was empty is a link, with its directory behind it
        assert os.readlink("/srv") == "var/srv"
        assert os.readlink("/media") == "run/media"
        assert not refuses("/srv/x")
        assert not refuses("/media/x")
        states = {path: state for path, _, state, _ in made.links}
        assert states["/home"] == "unadopted"
        assert states["/srv"] == "adopted"
        assert "immud adopt /home" in " ".join(p[2] for p in made.problems)

    booted(tmp_path, check)


def test_a_second_run_adds_nothing(tmp_path: Path) -> None:
    def check() -> None:
        main.lay_out()
        before = table()
        for _ in range(5):
            assert main.lay_out().layout == "done"
        assert table() == before

    booted(tmp_path, check)


def test_tmp_is_exchanged_and_volatile(tmp_path: Path) -> None:
    def prepare() -> None:
        Path("/tmp/old").write_text("kept")

    def check() -> None:
        main.lay_out()
        assert os.readlink("/tmp") == "sysroot/tmp"
        assert os.stat("/tmp/").st_mode & 0o7777 == 0o1777
        assert os.listdir("/tmp/") == []
        kernel.umount2("/sysroot/tmp")
        assert Path("/sysroot/tmp/old").read_text() == "kept"

    booted(tmp_path, check, prepare)


def test_tmp_of_tmp_mount_stays(tmp_path: Path) -> None:
    def prepare() -> None:
        wants = Path("/usr/lib/systemd/system/local-fs.target.wants")
        wants.mkdir(parents=True)
        (wants / "tmp.mount").symlink_to("../tmp.mount")

    def check() -> None:
        made = main.lay_out()
        assert not os.path.islink("/tmp")
        assert ("/tmp", "sysroot/tmp", "tmpfs", "link") in made.links

    booted(tmp_path, check, prepare)


def test_adopted_rows_get_their_directories(tmp_path: Path) -> None:
    def prepare() -> None:
        for row in SILVERBLUE[:4]:
            directory = Path(row.path)
            if directory.exists():
                directory.rename(f"/old-{directory.name}")
            directory.symlink_to(row.target)

    def check() -> None:
        made = main.lay_out()
        assert made.layout == "done", made.problems
        assert os.stat("/root/").st_mode & 0o7777 == 0o700
        assert os.stat("/home/").st_mode & 0o7777 == 0o755
        assert not refuses("/home/x")

    booted(tmp_path, check, prepare)


def test_a_directory_that_fstab_mounts_below_is_left(tmp_path: Path) -> None:
    def prepare() -> None:
        with open("/etc/fstab", "a", encoding="utf-8") as file:
            file.write("LABEL=data /mnt/data ext4 defaults 0 2\n")

    def check() -> None:
        made = main.lay_out()
        assert os.path.isdir("/mnt")
        assert not os.path.islink("/mnt")
        assert any(p[1] == "blocked" and "/var/mnt/data" in p[2] for p in made.problems)

    booted(tmp_path, check, prepare)


@pytest.mark.parametrize("base", ["/etc", "/usr/local/lib", "/usr/lib"])
def test_so_does_a_directory_where_a_unit_mounts_something(tmp_path: Path, base: str) -> None:
    def prepare() -> None:
        os.makedirs(f"{base}/systemd/system", exist_ok=True)
        Path(f"{base}/systemd/system/srv.mount").write_text("[Mount]\n")
        # Masked, it mounts nothing.
        Path("/usr/lib/systemd/system/mnt.mount").write_text("[Mount]\n")
        os.symlink("/dev/null", "/etc/systemd/system/mnt.mount")

    def check() -> None:
        made = main.lay_out()
        assert not os.path.islink("/srv")
        assert ("/srv", "var/srv", "blocked", "link") in made.links
        assert os.readlink("/mnt") == "var/mnt"
        assert main.lay_out().layout == "done"

    booted(tmp_path, check, prepare)


def test_a_foreign_link_is_left_alone(tmp_path: Path) -> None:
    def prepare() -> None:
        os.rmdir("/srv")
        os.symlink("/data/srv", "/srv")

    def check() -> None:
        made = main.lay_out()
        assert os.readlink("/srv") == "/data/srv"
        assert any(p[1] == "foreign" for p in made.problems)
        assert made.layout == "done"

    booted(tmp_path, check, prepare)


def test_a_row_can_be_a_bind(tmp_path: Path) -> None:
    rows = (Row("/srv", "var/srv", kind="bind"), Row("/home", "var/home", kind="bind"))

    def check() -> None:
        made = main.lay_out()
        states = {path: state for path, _, state, _ in made.links}
        assert states == {"/srv": "bound", "/home": "unadopted"}
        Path("/srv/x").write_text("")
        assert os.path.exists("/var/srv/x")
        assert main.lay_out().layout == "done"

    booted(tmp_path, check, boot_plan=BootPlan(rows=rows))


def test_a_writer_keeps_the_root_writable_and_is_named(tmp_path: Path) -> None:
    def check() -> None:
        fd = os.open("/boot/held", os.O_WRONLY | os.O_CREAT)
        made = main.lay_out()
        assert made.layout == "partial"
        (problem,) = [p for p in made.problems if p[1] == "root-writable"]
        assert "/boot/held" in problem[2]
        assert refuses("/usr/x")
        os.close(fd)
        assert main.lay_out().layout == "done"
        assert refuses("/x")

    booted(tmp_path, check)


def automount(target: str) -> int:
    """An automount point as systemd makes one, and where it says that somebody wants it."""
    told, kernels = os.pipe()
    daemon = os.fork()  # whoever is in its process group may look without being made to wait
    if daemon == 0:
        os.setpgid(0, 0)
        signal.pause()
    os.setpgid(daemon, daemon)
    options = f"fd={kernels},pgrp={daemon},minproto=5,maxproto=5,direct"
    kernel.mount("systemd-1", target, "autofs", 0, options)
    os.set_blocking(told, False)
    return told


def test_nothing_is_mounted_by_looking(tmp_path: Path) -> None:
    """Who looks waits for systemd, which waits for a network, which waits for phase 1."""

    def check() -> None:
        os.makedirs("/var/usrlocal")
        pipes = [automount(path) for path in ("/home", "/srv", "/var/usrlocal")]
        made = forked(main.lay_out, timeout=20)
        states = {path: state for path, _, state, _ in made.links}
        assert (states["/home"], states["/srv"]) == ("mounted", "mounted")
        assert made.layout == "done", made.problems
        # One that comes right after the table was read.
        forked(lambda: observe.look("/home"), timeout=20)
        for told in pipes:
            with pytest.raises(BlockingIOError):
                os.read(told, 1)

    booted(tmp_path, check)


def test_the_root_stays_writable_where_something_below_could_not(tmp_path: Path) -> None:
    def prepare() -> None:
        os.rename("/var", "/gone")

    def check() -> None:
        made = main.lay_out()
        assert made.layout == "partial"
        assert refuses("/usr/x")
        assert not refuses("/x")

    booted(tmp_path, check, prepare)


def test_namespaces_that_were_there_follow(tmp_path: Path) -> None:
    def check() -> None:
        # as in a booted system: everything is shared, services are slaves of it
        kernel.mount_setattr("/", propagation=kernel.MS_SHARED, recursive=True)
        ready, tell = os.pipe()
        go, release = os.pipe()

        def service(*, proc: bool) -> int:
            pid = os.fork()
            if pid == 0:
                kernel.unshare()
                kernel.mount_setattr("/", propagation=kernel.MS_SLAVE, recursive=True)
                if not proc:
                    kernel.umount2("/proc", kernel.MNT_DETACH)
                os.write(tell, b"1")
                os.read(go, 1)
                blocked = refuses("/x") and refuses("/usr/x") and not refuses("/etc/y")
                os._exit(0 if blocked else 1)
            os.read(ready, 1)
            return pid

        # One in the middle cannot be looked into, which must not keep the next from following.
        pids = [service(proc=proc) for proc in (True, False, True)]
        assert main.lay_out().layout == "done"
        os.write(release, b"111")
        ended = [os.waitpid(pid, 0)[1] == 0 for pid in pids]
        assert ended == [True, False, True]

    booted(tmp_path, check)


def test_mount_alone_does_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMUD_LEGACY", "1")

    def check() -> None:
        assert main.lay_out().layout == "done"
        assert refuses("/usr/x")
        assert refuses("/x")
        assert not refuses("/etc/x")
        assert not refuses("/home/alice/x")
        before = table()
        assert main.lay_out().layout == "done"
        assert table() == before

    booted(tmp_path, check)


def test_the_link_of_an_adoption_that_was_cut_off_gives_way(tmp_path: Path) -> None:
    def prepare() -> None:
        Path("/var/srv").symlink_to("var/srv")  # where the exchange with an empty /srv was next

    def check() -> None:
        made = main.lay_out()
        assert made.layout == "done", made.problems
        assert not refuses("/srv/x")

    booted(tmp_path, check, prepare)
