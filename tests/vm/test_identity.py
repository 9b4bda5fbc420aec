"""A tomb is opened because it is the one that was opened before, whatever another says it is."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.drive import CONTENT, LETTER, PASSPHRASE, Drive, plain
from tests.support.fixtures import HOME_UUID
from tests.support.metadata import decipher
from tests.support.tomb import KEY, assert_no_residue, configure, wait_for
from tests.support.vm import VM

HOME_LINK = f"/dev/disk/by-uuid/{HOME_UUID}"
PIN = "/etc/immud/tombs/home.json"


def last_error(machine: VM) -> str:
    argv = ("busctl", "get-property", "org.immud1", "/org/immud1/tomb/home", "org.immud1.Tomb")
    return machine.run(*argv, "LastError").stdout


def refused(machine: VM, drive: Drive) -> str:
    """Plug in a drive that is not opened; its error."""
    machine.plug(drive)
    wait_for(machine, "failed")
    said = last_error(machine)
    assert_no_residue(machine)
    assert machine.shell("ls /run/immud/header 2>&- || true") == ""
    machine.yank(drive)
    wait_for(machine, "absent")
    return said


def copied(drive: Drive, to: Path) -> Drive:
    shutil.copy(drive.path, to)
    return Drive(to, drive.uuid, drive.label, drive.serial)


def test_only_the_pinned_volume_is_opened(
    vm: VM, home_drive: Drive, drives: Callable[..., Drive], tmp_path: Path
) -> None:
    # The first that opens with the key is pinned.
    vm.plug(home_drive)
    wait_for(vm, "open")
    pin = vm.run("cat", PIN).stdout
    inner = vm.run("findmnt", "-no", "UUID", "/var/home").stdout.strip()
    assert (json.loads(pin)["uuid"], json.loads(pin)["file_system"]) == (HOME_UUID, inner)
    assert vm.run("stat", "-c", "%a %U", PIN).stdout == "600 root\n"
    assert "is the volume on /dev/sd" in "\n".join(vm.messages())
    # Nobody but immud has looked for what is in it.
    vm.run("udevadm", "settle")
    properties = vm.run("udevadm", "info", "/dev/mapper/immud-home").stdout
    assert "DM_NAME=immud-home" in properties
    assert "ID_FS_" not in properties
    assert vm.shell("ls /run/immud/header 2>&- || true") == ""
    vm.yank(home_drive)
    wait_for(vm, "absent")
    assert_no_residue(vm)

    # Another passphrase does not make another volume.
    changed(home_drive)
    vm.plug(home_drive)
    wait_for(vm, "open")
    assert vm.run("cat", f"/home/{LETTER}").stdout == CONTENT[LETTER]
    assert vm.run("cat", PIN).stdout == pin

    # With another file system in it, it is not the one that was pinned.
    vm.run("immud", "close", "home")
    vm.run("cryptsetup", "open", "--key-file", "/etc/immud/keys/home", HOME_LINK, "by-hand")
    vm.shell("e2fsck -fp /dev/mapper/by-hand; tune2fs -U random /dev/mapper/by-hand")
    vm.run("cryptsetup", "close", "by-hand")
    opened = vm.run("immud", "open", "home", check=False)
    assert opened.status == 1
    assert f"and not {inner}" in opened.stderr
    assert_no_residue(vm)
    vm.yank(home_drive)
    wait_for(vm, "absent")

    # The same UUID, label, serial and passphrase; and the very same header, but for its cipher.
    twin = drives(uuid=HOME_UUID, label=home_drive.label, serial=home_drive.serial)
    assert "its volume key is another one" in refused(vm, twin)
    rewritten = copied(home_drive, tmp_path / "rewritten")
    decipher(rewritten.path)
    assert "it is not encrypted (cipher_null-ecb)" in refused(vm, rewritten)
    assert vm.run("cat", PIN).stdout == pin


def test_luks1_is_pinned_and_a_plain_drive_is_asked_for(
    vm: VM, drives: Callable[..., Drive], tmp_path: Path
) -> None:
    old = drives(version=1)
    vm.run("sh", "-c", "umask 077; echo no >/etc/immud/keys/other")
    configure(vm, f'uuid = "{old.uuid}"\nkey = "/etc/immud/keys/other"\n')
    vm.plug(old)
    wait_for(vm, "failed")
    assert "The key file /etc/immud/keys/other does not open the volume" in last_error(vm)
    assert not vm.succeeds("test", "-e", PIN), "what did not open is not pinned"
    assert_no_residue(vm)
    configure(vm, f'uuid = "{old.uuid}"\n{KEY}')
    vm.run("immud", "open", "home")
    assert json.loads(vm.run("cat", PIN).stdout)["type"] == "LUKS1"
    vm.yank(old)
    wait_for(vm, "absent")
    assert "its volume key" in refused(vm, drives(version=1, uuid=old.uuid))

    # A drive that is not encrypted is none, unless that is said of it.
    bare = plain(tmp_path / "plain", label="plain", size=48 << 20)
    configure(vm, f'uuid = "{bare.uuid}"\n')
    vm.plug(bare)
    vm.wait_until(f"test -e /dev/disk/by-uuid/{bare.uuid}")
    wait_for(vm, "absent")
    configure(vm, f'uuid = "{bare.uuid}"\nencrypted = false\n')
    wait_for(vm, "open")
    options = vm.run("findmnt", "-no", "OPTIONS", "/var/home").stdout
    assert "nosuid,nodev" in options
    vm.yank(bare)
    wait_for(vm, "absent")
    assert_no_residue(vm)


def changed(drive: Drive) -> None:
    """Add a passphrase to the drive, and the old one again in a slot of its own."""
    cost = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--batch-mode")
    new = drive.path.with_name("new-passphrase")
    new.write_bytes(b"another one")
    for command in (
        ("luksAddKey", *cost, str(drive.path), str(new)),
        ("luksKillSlot", "--key-file", str(new), str(drive.path), "0"),
        ("luksAddKey", *cost, "--key-file", str(new), str(drive.path)),
    ):
        subprocess.run(["cryptsetup", *command], input=PASSPHRASE, check=True)
