"""A tomb in a virtual machine, as tests see it: its state on the bus, its holders, its residue."""

import json

from tests.support.vm import VM

HOME = "/org/immud1/tomb/home"

# Prints what there is of a tomb: mounts in any namespace, mappings, loop devices.
RESIDUE = """
udevadm settle
grep -l immud-home /proc/[0-9]*/mountinfo 2>/dev/null || true
ls /dev/mapper | grep immud || true
ls -d /sys/block/dm-* 2>/dev/null || true
losetup --list --noheadings
"""

# Several at once, so that there is always something on its way to the drive.
WRITE = """
rm -f /var/home/written?
systemd-run --quiet --collect --unit=writers sh -c '
    write() { while dd if=/dev/zero of=$1 bs=64k count=16 conv=fsync; do :; done; }
    cd /var/home
    for name in written1 written2 written3 written4; do write $name & done
    wait'
until [ -s /var/home/written4 ]; do sleep 0.02; done
"""


def state(machine: VM) -> str:
    argv = ("busctl", "get-property", "--json=short", "org.immud1", HOME, "org.immud1.Tomb")
    answer = json.loads(machine.run(*argv, "State").stdout)
    assert isinstance(answer["data"], str)
    return answer["data"]


def get_state(wanted: str) -> str:
    """What a shell asks whether that is the state."""
    get = f"busctl get-property org.immud1 {HOME} org.immud1.Tomb State"
    return f"{get} | grep -q '\"{wanted}\"'"


def wait_for(machine: VM, wanted: str, timeout: float = 60) -> None:
    machine.wait_until(get_state(wanted), timeout)


def configure(machine: VM, table: str) -> None:
    """Another [tomb.home], for the running daemon; none where `table` is empty."""
    text = f"[tomb.home]\n{table}" if table else ""
    machine.run("sh", "-c", "cat >/etc/immud/immud.toml", input=text)
    machine.run("busctl", "call", "org.immud1", "/org/immud1", "org.immud1.Manager", "Reload", *END)


def put(machine: VM, path: str, text: str) -> None:
    """A file that root can execute, such as a hook, and the directories above it."""
    script = 'mkdir -p "${0%/*}"; cat >"$0" && chmod 755 "$0"'
    machine.run("sh", "-c", script, path, input=text)


END = ("a{sv}", "0")
KEY = 'key = "/etc/immud/keys/home"\n'


def assert_no_residue(machine: VM) -> None:
    assert machine.shell(RESIDUE) == ""


def wait_ended(machine: VM, *units: str) -> None:
    """Those who held it have ended; that a process was killed, PID 1 hears a little later."""
    machine.wait_until(f"! systemctl is-active {' '.join(units)}")


def hold(machine: VM) -> None:
    """A writer, a working directory, a private copy of the mount, and a loop device with one."""
    machine.shell(
        """
        run() { systemd-run --quiet --collect --unit "$@"; }
        run writer sh -c 'cd /var/home; while echo x >>written; do sleep 0.05; done'
        run sitter --property=WorkingDirectory=/var/home/alice sleep 1000
        run private --property=PrivateMounts=yes --property=MountFlags=private sleep 1000
        truncate -s 4M /var/home/inner
        mkfs.ext4 -q -F /var/home/inner
        mkdir -p /run/inner
        mount -o loop /var/home/inner /run/inner
        run inner --property=WorkingDirectory=/run/inner sleep 1000
        """
    )
