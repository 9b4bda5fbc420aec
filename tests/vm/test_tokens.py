"""A tomb there at boot and closed at the end: by its key file, by a TPM, by its recovery key."""

from pathlib import Path

from tests.support.drive import CONTENT, LETTER, Drive
from tests.support.fixtures import HOME_UUID
from tests.support.image import Image
from tests.support.layout import failures
from tests.support.tomb import assert_no_residue, configure, put, state, wait_for
from tests.support.tpm import tpm
from tests.support.vm import VM
from tests.vm.test_dyne import answer

NODE = f"/dev/disk/by-uuid/{HOME_UUID}"
KEY_FILE = "--unlock-key-file=/etc/immud/keys/home"

# Run at power-off: what is written there by then is on the volume, or else on the disk below it.
FAREWELL = """#!/bin/sh
sleep 2
pgrep -f 'sleep 1000' >"$IMMUD_MOUNT_POINT/farewell"
echo "$IMMUD_EVENT" >>"$IMMUD_MOUNT_POINT/farewell"
"""

# TPM2_PCR_Extend of PCR 7 with a SHA-256 of ones, by an empty password session (TPM 2.0 library
# specification, part 3): what a firmware does when something else is booted.
EXTEND = """
import struct
session = struct.pack(">IHBH", 0x40000009, 0, 0, 0)
body = struct.pack(">I", 7) + struct.pack(">I", len(session)) + session
body += struct.pack(">IH", 1, 0x000B) + b"\\x01" * 32
command = struct.pack(">HII", 0x8002, 10 + len(body), 0x182) + body
with open("/dev/tpmrm0", "r+b", buffering=0) as tpm:
    tpm.write(command)
    assert struct.unpack(">HII", tpm.read(4096)[:10])[2] == 0
"""


def enrol(vm: VM, *arguments: str) -> str:
    return vm.run("systemd-cryptenroll", *arguments, NODE, timeout=120).stdout


def test_present_at_boot_and_closed_at_the_end(
    tomb_image: Image, home_drive: Drive, tmp_path: Path
) -> None:
    with tpm(tmp_path) as options, VM(tomb_image, options=options) as vm:
        vm.boot(drives=[home_drive])
        wait_for(vm, "open")
        assert vm.run("cat", f"/home/{LETTER}").stdout == CONTENT[LETTER]
        vm.shell("echo kept >/home/kept; test -e /dev/tpmrm0")
        # The pin is that of the volume, to which the keys it has do not belong.
        enrol(vm, KEY_FILE, "--tpm2-device=auto", "--tpm2-pcrs=7")
        recovery = enrol(vm, KEY_FILE, "--recovery-key").strip()
        assert recovery.count("-") == 7, recovery
        configure(vm, f'uuid = "{HOME_UUID}"\nkey = "ask"\n')
        vm.run("immud", "enable")
        put(vm, "/etc/immud/hooks.d/closing/10-note", FAREWELL)
        vm.run("systemd-run", "--quiet", "--unit=sitter", "--property=WorkingDirectory=/var/home",
               "sleep", "1000")  # fmt: skip
        console = vm.reboot(drives=[home_drive])

        def journal(pattern: str) -> str:
            return vm.run("journalctl", "-b", "-1", "-g", pattern, check=False).stdout

        assert failures(console, journal) == set()
        # There is nobody who could answer.
        wait_for(vm, "open", 120)
        assert vm.run("cat", "/home/kept").stdout == "kept\n"
        # Whoever worked on it had gone by then, and it was mounted still.
        assert vm.run("cat", "/home/farewell").stdout == "closing\n"
        # Of whichever unit: the journal may come to its last words when their process is gone.
        said = vm.messages("-b", "-1")
        assert any("Tomb home is closed" in text for text in said), said[-60:]
        # nothing had to be repaired: it was unmounted before the power went
        assert not any("recovering journal" in message for message in vm.messages())

        # Another state of the machine than the token is for: a person is asked, as ever.
        vm.yank(home_drive)
        wait_for(vm, "absent")
        assert_no_residue(vm)
        vm.run("python3", "-c", EXTEND)
        vm.plug(home_drive)
        vm.wait_until("ls /run/systemd/ask-password/ask.*", 120)
        assert state(vm) == "unlocking"
        answer(vm, recovery)
        wait_for(vm, "open", 120)
        assert vm.run("cat", "/home/kept").stdout == "kept\n"
