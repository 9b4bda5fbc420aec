"""A disk that is full or takes no writes, and a clock that is wrong: what is said stays true."""

from pathlib import Path

import pytest

from immud.early.plan import PATH
from tests.boot.test_lease import ENDED
from tests.support import image, machines
from tests.support.container import Container
from tests.support.layout import complaints
from tests.support.process import run
from tests.support.upgrades import true_status

# Without the line of /, which a container could not take out and put back on such a disk.
NO_LINE = "sed -i 's,^UUID,#&,' /etc/fstab\n"
# Takes all the room there is, without writing it.
FILL = """
size=1073741824; number=0
while [ $size -ge 1024 ]; do
    number=$((number + 1))
    fallocate -l $size /var/full.$number 2>/dev/null && continue
    rm -f /var/full.$number
    size=$((size / 2))
done
"""
# As if the clock were at 1970: all there is is of the future.
FUTURE = """
find /usr/lib/python3/dist-packages/immud /usr/lib/immud /usr/lib/systemd/system/immud* /etc /var \
    -exec touch -h -d 2099-01-01 {} +
py3compile -p immud
find /usr/lib/python3/dist-packages/immud -name '*.pyc' -exec touch -d 2099-01-01 {} +
"""
ERROR = "the file system of /etc and /var takes no writes any more"


def said(machine: Container) -> str:
    return " ".join(machine.run("immud", "status").stdout.split())


@pytest.mark.parametrize("suite", ["trixie", "bookworm"])
def test_a_boot_from_a_disk_that_is_read_only(suite: str) -> None:
    with Container(machines.adopted(image.installed(suite))) as machine:
        machine.disk.run("sh", "-c", NO_LINE)
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


def test_a_boot_with_a_full_disk(adopted_container: Container) -> None:
    machine = adopted_container
    machine.disk.write("/etc/immud/immud.toml", "[boot]\nwait = 11\n")
    machine.disk.run("sh", "-c", NO_LINE + FILL)
    plan = machine.disk.read(PATH)
    machine.boot()
    assert machine.succeeds("systemctl", "is-active", "-q", "console-getty")
    assert true_status(machine) == "running"
    assert complaints(machine) == []
    assert machine.run("cat", "/etc/immud/boot.count").stdout.split()[-1] == "0"
    assert "full-file-system" in machine.run("immud", "doctor", "--json", check=False).stdout
    refused = machine.run("immud", "enable", check=False)
    assert (refused.status, machine.run("cat", PATH).stdout) == (1, plan)
    assert "No space left on device" in refused.stderr
    machine.run("sh", "-c", "rm /var/full.*")
    machine.run("immud", "enable")
    machine.reboot()
    assert true_status(machine) == "running"
    assert complaints(machine) == []


def test_a_boot_in_1970(adopted_container: Container) -> None:
    machine = adopted_container
    machine.disk.run("sh", "-c", FUTURE)
    machine.boot()
    assert machine.system_state() == "running"
    assert true_status(machine) == "running"
    assert complaints(machine) == []
    assert "no-bytecode" not in machine.run("immud", "doctor", "--json", check=False).stdout
    machine.run("immud", "unlock", "--", "touch", "/usr/share/new")
    machine.wait_until("sh", "-c", f"journalctl -b -q {ENDED} | grep -q .")
    (lease,) = machine.journal("-b", ENDED)
    assert lease["IMMUD_FILES"].split("\n") == ["/usr/share", "/usr/share/new"]
    assert machine.run("immud", "verify").status == 0
    assert "FAILED" not in machine.poweroff()
