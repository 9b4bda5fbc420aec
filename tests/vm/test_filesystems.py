"""What a tomb's file system may be and what may be wrong with it, in a real machine."""

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

from tests.support.drive import CONTENT, LETTER, Drive
from tests.support.process import run
from tests.support.tomb import KEY, configure, wait_ended
from tests.support.vm import VM

# XFS_IOC_GOINGDOWN, without writing the log
SHUTDOWN = """
import fcntl, os, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, bytes([2, 0, 0, 0]))
"""
TOMB = "org.immud1.Tomb"


# What a terminal would act on, a quote, and bytes that are not UTF-8.
ODD = 'a\x1b[2J"\\x41 \N{CHEESE WEDGE}\udcff\udcc3 b'


class Place:
    """One configured tomb of a machine: what the bus says of it."""

    def __init__(self, machine: VM, name: str) -> None:
        self.machine = machine
        self.name = name
        self.at = f"/var/tombs/{name}"
        self.object = f"/org/immud1/tomb/{name}"

    def get(self, name: str) -> object:
        argv = ("busctl", "get-property", "--json=short", "org.immud1", self.object, TOMB, name)
        return json.loads(self.machine.run(*argv).stdout)["data"]

    def wait(self, wanted: str, property: str = "State", timeout: float = 90) -> None:
        get = f"busctl get-property org.immud1 {self.object} {TOMB} {property}"
        self.machine.wait_until(f"{get} | grep -qx '{wanted}'", timeout)

    def wait_open(self) -> None:
        self.wait('s "open"')

    def problems(self) -> list[str]:
        said = json.loads(self.machine.run("immud", "status", "--json", check=False).stdout)
        return [p["text"] for p in said["problems"] if p["data"].get("tomb") == self.name]

    def read(self) -> str:
        return self.machine.run("cat", f"{self.at}/{LETTER}").stdout


def tombs(machine: VM, more: str = "", **drives: Drive) -> dict[str, Place]:
    """Configure a tomb for each of the drives, with its name, and `more` for each."""
    tables = "".join(
        f'[tomb.{name}]\nuuid = "{drive.uuid}"\nmount = "/var/tombs/{name}"\n{KEY}{more}'
        for name, drive in drives.items()
    )
    configure(machine, f'label = "none"\n{KEY}{tables}')
    return {name: Place(machine, name) for name in drives}


def beyond_preen(plain: Path) -> None:
    """What e2fsck -p leaves to a person."""
    run("debugfs", "-w", "-R", "set_inode_field alice/.profile block[0] 1", str(plain))
    run("debugfs", "-w", "-R", "set_super_value state 2", str(plain))


def digest(drive: Drive) -> str:
    return hashlib.sha256(drive.path.read_bytes()).hexdigest()


def test_damaged_it_is_readable_and_what_is_said_repairs_it(
    vm: VM, drives: Callable[..., Drive]
) -> None:
    drive = drives(damage=beyond_preen)
    place = tombs(vm, bad=drive)["bad"]
    vm.plug(drive)
    place.wait_open()
    assert place.read() == CONTENT[LETTER]
    assert place.get("ReadOnly") is True
    assert place.get("FsType") == "ext4"
    (said,) = place.problems()
    assert "Tomb bad is open, but it is read-only" in said
    assert not vm.succeeds("touch", f"{place.at}/new")
    # What is said there, by somebody who answers yes.
    commands = said.partition("to repair it, run: ")[2].replace("fsck.ext4 -f", "fsck.ext4 -f -y")
    vm.run("sh", "-c", commands, check=False, timeout=60)
    place.wait_open()
    assert place.get("ReadOnly") is False
    assert place.problems() == []
    vm.run("touch", f"{place.at}/new")

    # Errors while it is open: ext4's own switch for them.
    node = vm.shell("basename $(readlink -f /dev/mapper/immud-bad)").strip()
    vm.shell(f"echo test >/sys/fs/ext4/{node}/trigger_fs_error")
    place.wait("b true", "ReadOnly", timeout=10)
    (said,) = place.problems()
    assert "it is read-only, for its file system has errors" in said
    # and the checker puts it right when it is opened the next time
    vm.run("immud", "close", "bad")
    vm.run("immud", "open", "bad")
    assert place.get("ReadOnly") is False
    assert place.problems() == []

    # Full to the last byte, it closes and opens like any other.
    vm.shell(f"cat /dev/zero >{place.at}/filler 2>/dev/null || true; sync")
    vm.run("immud", "close", "bad")
    vm.run("immud", "open", "--read-only", "bad")
    assert place.get("ReadOnly") is True
    assert place.problems() == []
    assert not vm.succeeds("touch", f"{place.at}/new")
    vm.run("immud", "close", "bad")
    vm.run("immud", "open", "bad")
    vm.run("rm", f"{place.at}/filler")
    vm.yank(drive)
    place.wait('s "absent"')


def test_xfs_btrfs_f2fs_and_a_switch_that_is_on(vm: VM, drives: Callable[..., Drive]) -> None:
    # From another machine, where their owner has another number.
    made = {name: drives(fstype=name, owner=4321) for name in ("xfs", "btrfs", "f2fs")}
    places = tombs(vm, more='map = "auto"\n', **made)
    for name, place in places.items():
        vm.plug(made[name])
        place.wait_open()
        assert place.get("FsType") == name
        assert place.read() == CONTENT[LETTER]
        vm.run("touch", f"{place.at}/alice/new", user="alice")
        assert vm.run("stat", "-c", "%U", f"{place.at}/alice").stdout == "alice\n"
    # xfs has no read-only: it shuts down, here by its own ioctl, and says so.
    down = (
        "import fcntl, os; fcntl.ioctl(os.open('/var/tombs/xfs', 0), 0x8004587D, b'\\2\\0\\0\\0')"
    )
    vm.run("python3", "-c", down)
    vm.wait_until("immud status --json | grep -q 'has shut down'", 10)
    for name, place in places.items():
        at = f"--property=WorkingDirectory={place.at}/alice"
        vm.run("systemd-run", "--quiet", "--collect", f"--unit=in-{name}", at, "sleep", "1000")
        vm.yank(made[name])
        place.wait('s "absent"')
        wait_ended(vm, f"in-{name}")
        vm.wait_until(f"! ls /dev/mapper | grep -q immud-{name}", 5)
        # What a pull left in its log is not replayed on a drive that takes no writes.
        before = digest(made[name])
        vm.plug(made[name], read_only=True)
        place.wait_open()
        assert place.get("ReadOnly") is True
        # An xfs may have brought its log to rest by itself before it was pulled, or not.
        assert all(name == "xfs" and "was not closed" in said for said in place.problems())
        assert place.read() == CONTENT[LETTER]
        vm.run("immud", "close", name)
        vm.yank(made[name])
        place.wait('s "absent"')
        assert digest(made[name]) == before
    vm.plug(made["xfs"])
    places["xfs"].wait_open()
    assert places["xfs"].get("ReadOnly") is False


def flipped(seed: int) -> Callable[[Path], None]:
    """Some bits in what is not zero, the same ones for a seed."""

    def damage(plain: Path) -> None:
        dice = random.Random(seed)  # noqa: S311 - to be the same each time
        with plain.open("r+b") as file:
            head = file.read(1 << 20)
            written = [at for at, byte in enumerate(head) if byte and at >= 1024]
            for at in dice.sample(written, 1 << dice.randrange(2, 8)):
                file.seek(at)
                file.write(bytes([head[at] ^ 1 << dice.randrange(8)]))

    return damage


def test_flipped_bits_are_an_answer_and_leave_nothing(vm: VM, drives: Callable[..., Drive]) -> None:
    made = {
        f"{fstype}{seed}": drives(fstype=fstype, damage=flipped(seed))
        for fstype, seed in (("ext4", 1), ("ext4", 2), ("xfs", 1), ("btrfs", 1), ("btrfs", 2))
    }
    made["ext43"] = drives(damage=flipped(4), label=ODD)
    places = tombs(vm, **made)
    ends = {}
    for name, place in places.items():
        vm.plug(made[name])
        place.wait('s "\\(open\\|failed\\)"')
        ends[name] = place.get("State")
        if ends[name] == "failed":
            assert place.get("LastError")
        vm.shell(f"ls -lR {place.at} || true")
        if made[name].label == ODD:
            assert place.get("Label") == ODD.encode(errors="surrogateescape").decode(
                "utf-8", "replace"
            )
            assert "\x1b" not in vm.run("immud", "status", check=False).stdout
        vm.yank(made[name])
        place.wait('s "absent"')
    assert set(ends.values()) == {"open", "failed"}, ends
    assert vm.shell("ls -d /sys/block/dm-* 2>/dev/null || true") == ""
    assert not any("Oops" in said or "BUG:" in said for said in vm.messages("-k"))
    assert vm.run("systemctl", "show", "-P", "NRestarts", "immud").stdout == "0\n"
