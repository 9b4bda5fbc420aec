"""Adopting and releasing while immud's mounts are active, and booting before and after."""

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

from immud.adopt import adopt, release
from immud.early import kernel, mountinfo
from tests.support.filesystems import (
    HOME,
    LINKS,
    PLAIN,
    ROWS,
    Machine,
    immutable,
    layout,
    refused,
    trees,
    void,
)


def test_an_immutable_system_goes_and_comes_back(machine: Machine) -> None:
    def test() -> None:
        assert immutable().layout == "done"
        assert refused("/new")
        rows = tuple(row for row in ROWS if row.path in ("/home", "/opt", "/root", "/usr/local"))
        before = trees()
        outcome = adopt(rows, ROWS)
        assert "working directory" in outcome.reboot
        assert layout() == LINKS | {"/tmp": "sysroot/tmp"}
        assert trees() == before
        assert not refused("/home/ada/new")
        assert not refused("/usr/local/bin/new")
        assert {m.target for m in mountinfo.read()} & {row.path for row in rows} == set()
        release(rows, ROWS)
        assert not set(layout()) & {row.path for row in rows}
        assert trees() == before
        for row in rows:
            assert not refused(f"{row.path}/new")
        assert refused("/new")
        assert refused("/usr/new")
        assert release(rows, ROWS).steps == ()

    machine.boot(test)


def test_the_adopted_layout_boots(machine: Machine) -> None:
    def again() -> None:
        made = immutable()
        assert made.layout == "done", made.problems
        assert layout() == LINKS | {"/tmp": "sysroot/tmp"}
        assert refused("/new")
        for row in PLAIN:
            assert not refused(f"{row.path}/new")
        assert adopt(ROWS, ROWS).steps == ()

    machine.boot(lambda: void(adopt(ROWS, ROWS)))
    machine.boot(again)


def test_open_files_and_working_directories_keep_working(ext4: Machine) -> None:
    def test() -> None:
        immutable()
        os.chdir("/home/ada")
        with open("notes", "r+", encoding="utf-8") as notes:
            adopt((HOME,), ROWS)
            assert notes.read() == "keep me\n"
            notes.write("and more\n")
        os.mkdir("made from the old working directory")
        assert Path("/home/ada/notes").read_text() == "keep me\nand more\n"
        assert os.path.isdir("/home/ada/made from the old working directory")

    ext4.boot(test)


def test_everything_is_released_on_an_immutable_system(ext4: Machine) -> None:
    def test() -> None:
        Path("/tmp/old").touch()
        adopt(ROWS, ROWS)
        assert immutable().layout == "done"
        Path("/tmp/volatile").touch()
        outcome = release(ROWS, ROWS)
        assert "Reboot now" in outcome.reboot
        assert layout() == {}
        assert os.stat("/tmp").st_mode & 0o7777 == 0o1777
        for row in ROWS:
            assert not refused(f"{row.path}/new")
        assert os.listdir("/sysroot/tmp") == ["volatile"]
        kernel.umount2("/sysroot/tmp")
        assert os.listdir("/sysroot/tmp") == ["old"]

    def later() -> None:
        assert layout() == {}
        assert os.listdir("/tmp") == []

    ext4.boot(test)
    ext4.boot(later)


def test_the_old_tmp_comes_back_once_no_tmpfs_is_over_it(ext4: Machine) -> None:
    def test() -> None:
        Path("/tmp/old").touch()
        immutable()

    def without_immud() -> None:
        release(ROWS, ROWS)
        assert os.listdir("/tmp") == ["old"]
        assert layout() == {}

    ext4.boot(test)
    ext4.boot(without_immud)


def test_a_service_with_a_view_of_its_own_is_named(ext4: Machine) -> None:
    def test() -> None:
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            kernel.unshare(kernel.CLONE_NEWNS)
            kernel.mount("tmpfs", "/home", "tmpfs", kernel.MS_RDONLY)
            os.write(told, b".")
            signal.pause()
        os.read(ready, 1)
        outcome = adopt(ROWS, ROWS)
        assert f"process {pid}" in outcome.reboot

    ext4.boot(test)


def test_with_shared_mounts_and_a_service_in_a_slave_namespace(ext4: Machine) -> None:
    """As systemd has it: / is shared, and what a service has of its own follows it."""

    def test() -> None:
        kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_SHARED)
        immutable()
        before = trees()
        go, told = socket.socketpair()

        def service() -> None:
            told.recv(1)
            assert os.readlink("/home") == "var/home"
            Path("/home/ada/from the service").touch()
            assert "/home" not in {m.target for m in mountinfo.read()}

        pid = os.fork()
        if pid == 0:
            kernel.unshare(kernel.CLONE_NEWNS)
            kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_SLAVE)
            told.send(b".")
            with suppress(BaseException):
                service()
                os._exit(0)
            os._exit(1)
        go.recv(1)
        adopt((HOME,), ROWS)
        go.send(b".")
        assert os.waitpid(pid, 0)[1] == 0
        os.unlink("/home/ada/from the service")
        assert trees() == before
        release((HOME,), ROWS)
        assert trees() == before
        assert not refused("/home/new")

    ext4.boot(test)
