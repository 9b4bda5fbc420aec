"""Other versions of the package, and dpkg killed while it brings one onto a disk.

dpkg runs in a chroot on a disk that is off, under strace(1), which kills it as it makes a call of
one's choice: at every moment of an upgrade that leaves something else behind, and again the
same one every time. All it has started ends with it.
"""

import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from immud.early.plan import PATH, decode
from tests.support import image
from tests.support.container import Container
from tests.support.disk import Disk

DEB = "/var/tmp/another.deb"
# What changes a disk in the main process of dpkg, and its waiting for each program it starts.
CALLS = "rename,link,unlink,mkdir,symlink,wait4"

_TRACED = """
out=$1; shift
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount --bind /dev dev
unshare --pid --fork --kill-child strace -qqq -o "$out" "$@" \
    env -i PATH="$PATH" LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    chroot . dpkg --force-unsafe-io -i "$DEB" >"$out.said" 2>&1 && echo done || echo killed
umount -l dev run sys proc
"""

Call = tuple[str, int, str]
"""A call of dpkg's: its name, which of that name it is, and the line strace wrote of it."""


def another(prefix: str, change: Callable[[Path], None] = lambda tree: None) -> bytes:
    """The package of this checkout with `prefix` before its version, and its files changed."""
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place) / "tree"
        subprocess.run(["dpkg-deb", "-R", image.package(), tree], check=True)
        change(tree)
        control = tree / "DEBIAN/control"
        control.write_text(control.read_text().replace("\nVersion: ", f"\nVersion: {prefix}"))
        made = Path(place) / "made.deb"
        command = ("dpkg-deb", "-Zgzip", "-z1", "-b", "--root-owner-group", tree, made)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return made.read_bytes()


def unfit(tree: Path) -> None:
    """Rename what modules call of each other, so that those of two versions do not fit."""
    names = re.compile(r"\b(perform|of_this_boot|locked|Client)\b")
    for path in tree.glob("usr/lib/**/*.py"):
        path.write_text(names.sub(r"\1_", path.read_text()))


def calls(disk: Disk) -> list[Call]:
    """Everything dpkg does to a disk as it brings the package at DEB onto it: to its end."""
    said, log = _dpkg(disk)
    assert said == "done", log
    count: Counter[str] = Counter()
    found = []
    for line in log.splitlines():
        name = line.partition("(")[0]
        if name in CALLS.split(","):
            count[name] += 1
            found.append((name, count[name], line))
    return found


def cut(disk: Disk, call: Call) -> None:
    """The same, killed as it makes `call`."""
    name, number, line = call
    said, log = _dpkg(disk, "-e", f"inject={name}:signal=KILL:when={number}")
    assert said == "killed", f"dpkg came to its end before {line}: {log[-2000:]}"


def _dpkg(disk: Disk, *options: str) -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "calls"
        script = f"DEB={DEB}{_TRACED}"
        said = disk.beside(script, str(out), "-e", f"trace={CALLS}", *options, timeout=300).stdout
        return said.strip(), out.read_text() + Path(f"{out}.said").read_text()


class Upgrades:
    """A machine, off, that goes back and forth between two versions, and never gets there at once.

    `calls` is all that dpkg does to it on the way to the newer one.
    """

    def __init__(self, machine: Container) -> None:
        self.machine = machine
        self._versions = another("9.", unfit), image.package().read_bytes()
        machine.disk.write(DEB, self._versions[0])
        with Container(machine.disk) as copy:
            self.calls = calls(copy.disk)

    def cut_off(self, call: Call) -> str:
        """Kill dpkg at `call`, boot, look, and mend it as a person would. What dpkg said of it."""
        machine, (package, other) = self.machine, self._versions
        self._versions = other, package
        machine.disk.write(DEB, package)
        cut(machine.disk, call)
        machine.boot()
        assert machine.succeeds("systemctl", "is-active", "-q", "console-getty")
        true_status(machine)
        said = machine.run("dpkg", "--configure", "-a", check=False, timeout=120)
        if _state(machine) != "installed":  # dpkg asks for it
            assert said.status == 0 or "reinstall it" in said.stderr, said
            machine.run("dpkg", "-i", DEB, timeout=120)
        assert _state(machine) == "installed"
        assert machine.run("dpkg", "--audit").stdout == ""
        # Where the boot could not be laid out, it begins with the next one.
        assert true_status(machine) in ("running", "degraded", "off")
        decode(machine.run("cat", PATH).stdout.encode())
        machine.poweroff()
        return said.stderr


def _state(machine: Container) -> str:
    return machine.run("dpkg-query", "-W", "-f", "${db:Status-Status}", "immud").stdout


def settled(machine: Container) -> str:
    """Wait until the service is up to stay or has failed; `active`, `failed` or `inactive`."""
    ready = "busctl --timeout=2 get-property org.immud1 /org/immud1 org.immud1.Manager State"
    state = "systemctl show --value -p ActiveState immud"
    script = f"case $({state}) in active) {ready} ;; failed | inactive) ;; *) exit 1 ;; esac"
    machine.wait_until("sh", "-c", script, timeout=60)
    return machine.run("sh", "-c", state).stdout.strip()


def true_status(machine: Container) -> str:
    """Hold what `immud status` says against the mount table; the state it says, or `failed`."""
    state = settled(machine)
    said = machine.run("immud", "status", "--json", check=False)
    if state != "active" or "an upgrade of it was cut off" in said.stderr:
        assert said.status in (1, 3), said
        assert "Traceback" not in said.stderr, said
        assert "immud" in said.stderr, said
        return "failed"
    assert said.status == 0, said
    told = json.loads(said.stdout)
    for mount in told["mounts"]:
        there = machine.mounts(mount["where"])
        assert (mount["state"] == "missing") == (not there), mount
        assert not there or mount["read_only"] != _writable(machine, mount["where"]), mount
    assert told["usr_read_only"] != _writable(machine, "/usr"), told
    assert told["root_read_only"] != _writable(machine, "/"), told
    return str(told["state"])


def _writable(machine: Container, place: str) -> bool:
    return machine.succeeds("sh", "-c", 'file=$(mktemp -p "$1") && rm "$file"', "sh", place)
