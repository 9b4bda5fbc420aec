"""Making a tomb on a real drive, with udev, the daemon and the device mapper looking on."""

import json
import os
import re
from pathlib import Path

from tests.support.drive import CONTENT, LETTER, PASSPHRASE, Drive, luks
from tests.support.process import Completed
from tests.support.tomb import assert_no_residue, state, wait_for
from tests.support.vm import VM

# As little work as cryptsetup does for a passphrase: the test is not about that.
CHEAP = ("--iter-time", "10", "--pbkdf-memory", "1024")
NEW = "another passphrase"


def blank(path: Path, size: int = 80 << 20) -> Drive:
    """A USB drive as it comes from the factory, if that writes nothing to it."""
    path.touch()
    os.truncate(path, size)
    return Drive(path, "", "", path.name.upper())


def tomb(vm: VM, *arguments: str, key: str | bytes = PASSPHRASE, status: int = 0) -> Completed:
    """`immud tomb`, with a passphrase on its standard input, and how it has to end."""
    done = vm.run("immud", "tomb", *arguments, input=key, check=False, timeout=200)
    assert done.status == status, done
    return done


def plug(vm: VM, drive: Drive, node: str = "sda") -> None:
    vm.plug(drive)
    vm.wait_until(f"test -b /dev/{node} && udevadm settle")


def unlock(vm: VM, key: str) -> None:
    """Answer the daemon's question, which a freshly plugged tomb with a passphrase asks."""
    answer = """
import glob, socket, sys, time
while not (found := glob.glob("/run/systemd/ask-password/ask.*")): time.sleep(0.05)
where = next(l for l in open(found[0]).read().splitlines() if l.startswith("Socket="))[7:]
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"+" + sys.stdin.buffer.read(), where)
"""
    vm.run("python3", "-c", answer, input=key)
    wait_for(vm, "open")


def test_a_fresh_drive_becomes_a_tomb_with_everybodys_home(vm: VM, tmp_path: Path) -> None:
    """And then: another passphrase, a recovery key, a backup, forgotten, and made anew."""
    vm.run("rm", "/etc/immud/immud.toml")
    drive = blank(tmp_path / "blank")
    plug(vm, drive)
    make = ("create", "/dev/sda", "--from", "/home", "--passphrase-fd", "0")
    assert "--yes-i-mean" in tomb(vm, *make, status=2).stderr
    assert "holds the running system" in tomb(vm, "create", "/dev/vda", status=1).stderr

    # A plain file there says whether the originals are seen, or the copies.
    vm.run("touch", "/var/home/alice/copied")
    made = tomb(vm, *make, *CHEAP, "--yes-i-mean", "/dev/sda")
    assert "Tomb home is open at /var/home." in made.stdout, made
    assert "immud close home && ls -A /var/home" in made.stdout
    assert state(vm) == "open"
    assert vm.run("cat", "/home/alice/Documents/letter.txt", user="alice").stdout == "a letter\n"
    listed = json.loads(tomb(vm, "list", "--json").stdout)
    assert [(each["name"], each["state"], each["device"]) for each in listed] == [
        ("home", "open", "/dev/sda")
    ]
    assert vm.run("stat", "-c", "%a %U", "/etc/immud/tombs/home.json").stdout == "600 root\n"
    refused = tomb(vm, "create", "/dev/sda", "--overwrite", "--no-enrol", status=1)
    assert "in use" in refused.stderr

    assert "is open" in tomb(vm, "forget", "home", status=1).stderr
    again = ("--passphrase-fd", "0", "--new-key-file", "/etc/immud/keys/home")
    refused = tomb(vm, "passwd", *again, key="wrong", status=1)
    assert refused.stderr.startswith("immud: Wrong passphrase or key")
    vm.run("sh", "-c", "umask 077; cat >/run/new", input=NEW)
    tomb(vm, "passwd", "--passphrase-fd", "0", "--new-key-file", "/run/new", *CHEAP)
    recovery = tomb(vm, "recovery-key", "--key-file", "/run/new").stdout.strip()
    assert re.fullmatch(r"([a-z]{8}-){7}[a-z]{8}", recovery)
    assert "would be lost with it" in tomb(
        vm, "header-backup", "home", "/var/home/header", status=1
    ).stderr  # fmt: skip
    tomb(vm, "header-backup", "home", "/var/tmp/header")

    vm.run("sh", "-c", "touch /var/home/alice/carried; sync")
    vm.yank(drive)
    wait_for(vm, "absent")
    assert_no_residue(vm)
    assert vm.succeeds("test", "-e", "/var/home/alice/copied")
    vm.plug(drive)
    unlock(vm, recovery)
    assert vm.succeeds("test", "-e", "/var/home/alice/carried")
    vm.run("immud", "close", "home")
    tomb(vm, "forget", "home")
    assert "No tomb is configured" in tomb(vm, "list").stdout
    assert vm.run("find", "/etc/immud", "-name", "*home*", "-type", "f").stdout == (
        "/etc/immud/keys/home\n"
    )
    assert_no_residue(vm)

    # All of it again, on what is there now: with a partition table, and no enrolment.
    again = ("create", "/dev/sda", "--partition", "--no-enrol", "--passphrase-fd", "0", *CHEAP)
    assert "crypto_LUKS (home) on /dev/sda" in tomb(vm, *again, status=1).stderr
    tomb(vm, *again, "--overwrite", "--yes-i-mean", "/dev/sda")
    assert vm.run("lsblk", "-rno", "NAME,FSTYPE", "/dev/sda").stdout == "sda \nsda1 crypto_LUKS\n"
    assert_no_residue(vm)


def test_an_interrupted_run_is_gone_on_with(vm: VM, tmp_path: Path) -> None:
    """Killed, and the drive pulled, while homes are copied."""
    vm.run("rm", "/etc/immud/immud.toml")
    script = "head -c 20M /dev/urandom >/var/home/alice/large; sha256sum /var/home/alice/large"
    before = vm.shell(script, timeout=120)
    drive = blank(tmp_path / "blank", 112 << 20)
    plug(vm, drive)
    make = ("create", "/dev/sda", "--from", "/var/home", "--partition")
    make = (*make, "--passphrase-fd", "0", *CHEAP)
    yes = ("--yes-i-mean", "/dev/sda")

    pid = vm.start("immud", "tomb", *make, *yes, input=PASSPHRASE)
    vm.wait_until("pgrep -x rsync", 120)
    vm.run("kill", "-KILL", str(pid))
    assert vm.finish(pid, 60).status != 0
    # rsync ends by itself, and with it the mount and the mapping, whoever looks after them.
    vm.wait_until("! pgrep -x rsync", 120)
    assert_no_residue(vm)
    assert "--from" in tomb(vm, "create", "/dev/sda", status=1).stderr

    pid = vm.start("immud", "tomb", *make, *yes, input=PASSPHRASE)
    vm.wait_until("pgrep -x rsync", 120)
    vm.yank(drive)
    done = vm.finish(pid, 60)
    assert done.status == 1
    assert "pulled out" in done.stderr, done
    assert_no_residue(vm)

    plug(vm, drive)
    made = tomb(vm, *make, *yes)
    assert "make an encrypted volume" not in made.stdout
    assert state(vm) == "open"
    assert vm.shell("sha256sum /var/home/alice/large") == before
    vm.run("immud", "eject", "home")
    wait_for(vm, "absent")
    assert_no_residue(vm)


def test_a_volume_made_elsewhere_is_enrolled_and_grows(vm: VM, tmp_path: Path) -> None:
    vm.run("rm", "/etc/immud/immud.toml")
    drive = luks(tmp_path / "foreign", serial="FOREIGN1")
    plug(vm, drive)
    tomb(vm, "enrol", "/dev/sda", "--key-file", "/etc/immud/keys/home")
    wait_for(vm, "open")
    assert vm.run("cat", f"/home/{LETTER}").stdout == CONTENT[LETTER]

    def blocks() -> int:
        return int(vm.run("stat", "-f", "-c", "%b", "/var/home").stdout)

    small = blocks()
    # While it is open, the mapping has to grow too; the key file is the one of its table.
    vm.grow(drive, 128 << 20)
    vm.shell("echo 1 >/sys/block/sda/device/rescan; udevadm settle")
    assert "has room for" in tomb(vm, "resize").stdout
    assert blocks() > 2 * small
    vm.run("immud", "close", "home")
    vm.yank(drive)
    os.truncate(drive.path, 192 << 20)
    vm.plug(drive)
    wait_for(vm, "open")
    before = blocks()
    assert "has room for" in tomb(vm, "resize").stdout
    assert blocks() > before
