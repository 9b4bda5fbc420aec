"""A tomb on a drive that is reached over the network; its real server dies and comes back."""

import json
from pathlib import Path

import pytest

from tests.support.drive import CONTENT, LETTER, Drive, plain
from tests.support.tomb import assert_no_residue, hold, wait_ended, wait_for
from tests.support.vm import VM

CONFIG = "[generic]\nlistenaddr = 127.0.0.1\n[home]\nexportname = /run/server/tomb\n"
SERVE = """
systemd-run --quiet --collect --unit=server nbd-server -d -C /run/nbd.conf
until ss -Hltn 'sport = :10809' | grep -q .; do sleep 0.05; done
systemd-run --quiet --collect --unit=client nbd-client 127.0.0.1 /dev/nbd0 -N home "$@"
"""
# Prints when that was, by the machine's clock since it was booted.
KILL = """
processes=$(cat /sys/fs/cgroup/system.slice/server.service/cgroup.procs)
cut -d' ' -f1 /proc/uptime
kill -KILL $processes
"""
LIMIT = 6.0
"""From the kernel's word that the server is gone to nothing left, seconds: twice what it may take
under TCG, for a machine that is busy as well."""


@pytest.fixture
def server(home_drive: Drive, tmp_path: Path) -> Drive:
    """A drive that has the tomb as a file, for a server to give out."""
    content = tmp_path / "content"
    content.mkdir()
    home_drive.path.rename(content / "tomb")
    return plain(tmp_path / "server", label="SERVER", content=content)


def said(vm: VM, since: float, *match: str) -> list[tuple[float, str]]:
    """What the journal was told since then, and when, by the same clock."""
    lines = vm.run("journalctl", "-b", "-o", "json", *match).stdout.splitlines()
    entries = (json.loads(line) for line in lines)
    told = (
        (int(e.get("_SOURCE_MONOTONIC_TIMESTAMP", e["__MONOTONIC_TIMESTAMP"])) / 1e6, e["MESSAGE"])
        for e in entries
    )
    return [(at, text) for at, text in told if at >= since]


def test_the_server_goes_and_comes_back(vm: VM, server: Drive) -> None:
    vm.plug(server)
    vm.wait_until("test -e /dev/disk/by-label/SERVER")
    vm.shell("mkdir /run/server; mount /dev/disk/by-label/SERVER /run/server; modprobe nbd")
    vm.run("sh", "-c", "cat >/run/nbd.conf", input=CONFIG)
    # By generic netlink, after which no client is left to notice anything, and by ioctl.
    for options in (("-L", "-n"), ()):
        vm.shell(SERVE, *options)
        wait_for(vm, "open")
        assert vm.run("cat", f"/home/{LETTER}", user="alice").stdout == CONTENT[LETTER]
        hold(vm)
        killed = float(vm.shell(KILL))
        wait_for(vm, "absent")
        assert_no_residue(vm)
        noticed = min(at for at, text in said(vm, killed, "-k") if "nbd0" in text)
        gone = next(at for at, text in said(vm, killed) if "nothing of it is left" in text)
        print(f"noticed after {noticed - killed:.2f} s, nothing left {gone - noticed:.2f} s later")
        assert gone - noticed <= LIMIT
        wait_ended(vm, "writer", "sitter", "inner")
        vm.run("systemctl", "stop", "private")
    # It is not open, nobody uses it: that the server is gone is noticed nevertheless.
    vm.shell(SERVE)
    wait_for(vm, "open")
    vm.run("immud", "close", "home")
    vm.shell(KILL)
    wait_for(vm, "absent")
