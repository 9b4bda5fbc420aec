"""Tombs of Dyne's, made by Debian's own tomb(1), and keys that are carried on drives."""

from pathlib import Path

from tests.support.drive import PASSPHRASE, Drive, plain, stick
from tests.support.fixtures import HOME_UUID
from tests.support.tomb import assert_no_residue, configure, hold, state, wait_ended, wait_for
from tests.support.vm import VM

WORDS = "rest in \\peace"
# What a person does with tomb(1): here is everything that the tomb consists of.
MAKE = """
exec 2>&1
mkdir -p /run/stick && mount /dev/disk/by-label/STICK /run/stick && cd /run/stick
tomb dig -s 24 secret.tomb
tomb forge -f --unsafe --tomb-pwd "$1" --kdf 2 --kdftype argon2 --kdfmem 12 secret.tomb.key
tomb lock -f --unsafe --tomb-pwd "$1" secret.tomb -k secret.tomb.key
tomb open -f --unsafe --tomb-pwd "$1" secret.tomb -k secret.tomb.key /run/opened
echo 'a letter' >/run/opened/letter
cd / && tomb close secret
head -n 1 /run/stick/secret.tomb.key
umount /run/stick
"""
ANSWER = """
import glob, socket, sys
question = open(glob.glob("/run/systemd/ask-password/ask.*")[0]).read()
where = next(l for l in question.splitlines() if l.startswith("Socket="))[7:]
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"+" + sys.stdin.buffer.read(), where)
"""


def answer(vm: VM, passphrase: str) -> None:
    """As one of systemd's password agents does, once somebody is asked."""
    vm.wait_until("ls /run/systemd/ask-password/ask.*")
    vm.run("python3", "-c", ANSWER, input=passphrase)
    vm.wait_until("! ls /run/systemd/ask-password/ask.*")


def tomb(vm: VM, *arguments: str) -> str:
    done = vm.run("tomb", *arguments)
    return done.stdout + done.stderr


def test_a_tomb_on_a_stick(vm: VM, tmp_path: Path) -> None:
    carrier = stick(tmp_path / "stick", label="STICK")
    vm.plug(carrier)
    vm.wait_until("test -e /dev/disk/by-label/STICK")
    made = vm.run("sh", "-ec", MAKE, "sh", WORDS, timeout=120).stdout
    assert "_KDF_argon2_" in made, made
    configure(vm, f'uuid = "{carrier.uuid}"\nfile = "secret.tomb"\nkey = "drive:secret.tomb.key"\n')
    answer(vm, "not that")
    answer(vm, WORDS)
    wait_for(vm, "open")
    assert vm.run("cat", "/home/letter").stdout == "a letter\n"
    assert "vfat" not in vm.run("cat", "/proc/self/mountinfo").stdout
    listed = tomb(vm, "list")
    assert "secret" in listed, listed
    assert "/var/home" in listed, listed
    # By tomb's own hand, which immud keeps out of the way of.
    assert "closed" in tomb(vm, "close", "secret")
    wait_for(vm, "present")
    assert_no_residue(vm)
    opening = vm.start("immud", "open", "home")
    answer(vm, WORDS)
    assert vm.finish(opening).status == 0
    vm.run("systemctl", "restart", "immud")
    wait_for(vm, "open")
    hold(vm)
    vm.yank(carrier)
    wait_for(vm, "absent")
    assert_no_residue(vm)
    wait_ended(vm, "writer", "sitter", "inner")


def test_a_key_on_a_second_drive(vm: VM, home_drive: Drive, tmp_path: Path) -> None:
    """Either may come first, and the key may go while the tomb is open."""
    (tmp_path / "content/keys").mkdir(parents=True)
    (tmp_path / "content/keys/home").write_bytes(PASSPHRASE)
    keys = plain(tmp_path / "keys", label="KEYS", size=64 << 20, content=tmp_path / "content")
    configure(vm, f'uuid = "{HOME_UUID}"\nkey = "LABEL=KEYS:/keys/home"\n')
    vm.plug(home_drive)
    wait_for(vm, "present")
    refused = vm.run("immud", "open", "home", check=False)
    assert refused.status == 1
    assert "plug in LABEL=KEYS" in refused.stderr
    shown = vm.run("immud", "status", check=False).stdout
    assert "plug in LABEL=KEYS" in " ".join(shown.split())
    vm.plug(keys)
    wait_for(vm, "open")
    assert "KEYS" not in vm.run("findmnt", "-no", "LABEL").stdout
    vm.yank(keys)
    vm.wait_until("! test -e /dev/disk/by-label/KEYS")
    assert state(vm) == "open"
    vm.run("immud", "eject", "home")
    wait_for(vm, "absent")
    assert_no_residue(vm)
    vm.yank(home_drive)
    vm.plug(keys)
    vm.wait_until("test -e /dev/disk/by-label/KEYS")
    vm.plug(home_drive)
    wait_for(vm, "open")
    vm.yank(home_drive)
    wait_for(vm, "absent")
    assert_no_residue(vm)
