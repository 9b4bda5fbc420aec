"""Making a tomb on a real drive, with udev, the daemon and the device mapper looking on."""

import os
from pathlib import Path

from tests.support.drive import PASSPHRASE, Drive
from tests.support.tomb import state
from tests.support.vm import VM

# As little work as cryptsetup does for a passphrase: the test is not about that.
CHEAP = ("--iter-time", "10", "--pbkdf-memory", "1024")


def blank(place: Path, size: int = 64 << 20) -> Drive:
    """A USB drive as it comes from the factory, if that writes nothing to it."""
    path = place / "blank"
    path.touch()
    os.truncate(path, size)
    return Drive(path, "", "", "BLANK001")


def test_a_fresh_drive_becomes_a_tomb(vm: VM, tmp_path: Path) -> None:
    vm.run("rm", "/etc/immud/immud.toml")
    vm.plug(blank(tmp_path))
    vm.wait_until("test -b /dev/sda && udevadm settle")
    made = vm.run(
        *("immud", "tomb", "create", "/dev/sda", "--passphrase-fd", "0", *CHEAP),
        *("--yes-i-mean", "/dev/sda"),
        input=PASSPHRASE,
        check=False,
        timeout=200,
    )
    print(made.stdout, made.stderr)
    print("\n".join(vm.messages("-b", "-u", "immud", "-n", "20")))
    assert made.status == 0
    assert state(vm) == "open"
