"""A root file system that takes no writes, from the start of a boot or in the middle of it."""

from pathlib import Path

import pytest

from tests.support import image, machines
from tests.support.container import Container
from tests.support.layout import complaints
from tests.support.process import run
from tests.support.upgrades import true_status

ERROR = "the file system of /etc and /var takes no writes any more"


def said(machine: Container) -> str:
    return " ".join(machine.run("immud", "status").stdout.split())


@pytest.mark.parametrize("suite", ["trixie", "bookworm"])
def test_a_boot_from_a_disk_that_is_read_only(suite: str) -> None:
    with Container(machines.adopted(image.installed(suite))) as machine:
        machine.disk.run("sed", "-i", "s,^UUID,#&,", "/etc/fstab")
        # As the kernel does by itself with a device that it may not write to.
        run("tune2fs", "-O", "read-only", str(machine.disk.path))
        machine.boot()
        assert not machine.succeeds("touch", "/var/x")
        assert machine.succeeds("systemctl", "is-active", "-q", "console-getty")
        assert true_status(machine) == "degraded"
        assert ERROR in said(machine)
        assert "so only /usr is protected" in said(machine)
        assert "/etc/immud/boot.count cannot be written" in machine.console
        assert [unit for unit in machine.failed_units() if "immud" in unit] == []
        machine.kill()
        run("tune2fs", "-O", "^read-only", str(machine.disk.path))
        machine.boot()
        assert true_status(machine) == "running"
        assert complaints(machine) == []


def test_a_disk_that_fails_in_a_running_system(adopted_container: Container) -> None:
    machine = adopted_container
    run("tune2fs", "-e", "remount-ro", str(machine.disk.path))
    machine.boot()
    assert true_status(machine) == "running"
    device = machine.run("findmnt", "-n", "-o", "SOURCE", "/").stdout.split("[")[0].strip()
    # ext4 takes it for an error of this disk (Documentation/ABI/testing/sysfs-fs-ext4)
    Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("for a test\n")
    assert not machine.succeeds("touch", "/var/x")
    assert true_status(machine) == "degraded"
    assert ERROR in said(machine)
    doctor = machine.run("immud", "doctor", check=False)
    assert doctor.status == 1
    assert "The file system of / itself is read-only" in doctor.stdout
    # a daemon that is started meanwhile says the same
    machine.run("systemctl", "restart", "immud")
    assert true_status(machine) == "degraded"
    assert ERROR in said(machine)
    machine.kill()
    run("e2fsck", "-fp", str(machine.disk.path), check=False)
    machine.boot()
    assert true_status(machine) == "running"
    assert complaints(machine) == []
