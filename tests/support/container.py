"""A disk booted by systemd-nspawn: the real systemd of the image, about a second a boot.

There is no udev, no device-mapper and no kernel of its own in there, and the root file system is
a loop-mounted ext4, so that everything about mounts is real. Each boot runs in a mount namespace
of its own that ends with it: nothing is mounted on the host, at no moment.

    with Container(image.installed()) as machine:
        machine.boot()
        machine.run("immud", "adopt")
        machine.reboot()
        assert machine.system_state() == "running"
        assert "FAILED" not in machine.poweroff()
"""

import contextlib
import ctypes
import inspect
import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from tests.support import cache
from tests.support.disk import Disk, discard, temporary_copy
from tests.support.image import Image, image_at
from tests.support.inside import COMMAND_LIMIT, Inside
from tests.support.process import PATH, Completed, HarnessError, run, tail

BOOT_LIMIT = 60.0
"""Seconds until a container must have finished booting."""

LOOPS = 16
"""How many loop devices a container sees; they are the host's own."""

_REBOOT = 133  # systemd-nspawn(1), --keep-unit: the container asked for a reboot

_BOOT = """
set -e
mount --make-rprivate /
mount -o loop "$1" "$2"
root=$2; shift 2
# systemd-nspawn keeps its books below /run: not the host's.
mount -t tmpfs -o mode=755 tmpfs /run
# The line of / is for a machine with that disk; a container has / already. (A test whose
# disk is full or read-only has taken it out.)
line() { ! grep -q "$1" "$root/etc/fstab" || sed -i "s,$1,$2," "$root/etc/fstab"; }
line '^UUID=[^ ]* / ' '#container# &'
# Two containers in one control group would take each other's services for their own, and stop
# them: each gets a group of its own, below the one that tests/run is in.
above=$(findmnt -n -o TARGET -t cgroup2 | head -n 1)$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir "$above/immud-$$"
echo $$ >"$above/immud-$$/cgroup.procs"
status=0
systemd-nspawn -D "$root" "$@" || status=$?
echo $$ >"$above/cgroup.procs"
find "$above/immud-$$" -depth -type d -exec rmdir {} + || :
line '^#container# ' ''
# Loop devices on files of this disk would keep it mounted for ever.
disk=$(findmnt -n -o MAJ:MIN "$root" | tr -d ' ')
losetup --list --noheadings --output NAME,BACK-MAJ:MIN | while read -r name back; do
    [ "$back" != "$disk" ] || losetup --detach "$name"
done
# Commands that came in from outside may hold it for a moment longer.
umount "$root" || { sleep 1; umount "$root"; }
exit $status
"""

# What stands in for PID 1 until /proc/cmdline says what the test wants; $1 is that line.
_INIT = """
mount --bind /run/host.cmdline /proc/cmdline
exec /lib/systemd/systemd --show-status=yes $1
"""


def prepared(
    below: Image,
    name: str,
    what: str,
    prepare: Callable[["Container"], None],
    *made_of: Path,
) -> Image:
    """`below` after `prepare` has run in a booted container of it and it was shut down; cached.

    `what` is told to the person who waits. The function's own text is part of the key, and so
    are the files it is `made_of`.
    """

    def build(aside: Path) -> None:
        with Container(below) as container:
            container.boot()
            prepare(container)
            container.poweroff()
            container.disk.copy(aside / "disk.ext4")
        os.link(below.kernel, aside / "vmlinuz")
        os.link(below.initrd, aside / "initrd.img")

    key = cache.digest(below.key, inspect.getsource(prepare), *made_of)
    return image_at(cache.entry(name, key, what, build))


class Container(Inside):
    """A machine on a disk of its own, a copy of `image`'s; thrown away by `close`.

    It is off at first: `disk` can be looked into and changed whenever the machine is off.
    With `loops` it has the host's loop devices; `arguments` are more of systemd-nspawn(1)'s.
    """

    boot_limit = BOOT_LIMIT

    def __init__(
        self, image: Image | Disk, *, loops: bool = False, arguments: Sequence[str] = ()
    ) -> None:
        source = image.disk if isinstance(image, Image) else image
        self.disk = temporary_copy(source, "container")
        self.loops, self.arguments = loops, tuple(arguments)
        self._place = self.disk.path.parent
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._boots = 0

    def __enter__(self) -> "Container":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, AssertionError | HarnessError):
            error.add_note(f"console of the container:\n{tail(self.console, 60)}")
        self.close()

    # Turning it on and off

    def boot(
        self,
        *,
        kernel: str = "",
        wait: bool = True,
        timeout: float = BOOT_LIMIT,
    ) -> None:
        """Turn it on; with `wait`, return when systemd says that booting has finished.

        `kernel` is the kernel's command line, both in /proc/cmdline and as the arguments of PID 1,
        which is where systemd looks in a container. Finished does not mean well: ask
        `system_state`. Raises HarnessError with the console's end after `timeout` seconds.
        """
        assert self._process is None, "the container is on already"
        self._boots += 1
        point = self._place / "root"
        point.mkdir(exist_ok=True)
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        notify.bind("")  # the kernel picks a free abstract address
        options = [
            *("--quiet", "--keep-unit", "--register=no", "--private-users=no"),
            *("--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no"),
            *("--console=read-only", "--notify-ready=yes", "--machine=debian"),
            *self.arguments,
        ]
        if self.loops:
            options += [f"--bind=/dev/loop{number}" for number in _loop_devices()]
            options += ["--bind=/dev/loop-control"]
        if kernel:
            line = self._place / "cmdline"
            line.write_text(kernel + "\n")
            options += [f"--bind-ro={line}:/run/host.cmdline", "/bin/sh", "-c", _INIT, "sh", kernel]
        else:
            options += ["--boot", "--", "--show-status=yes"]
        console = self._console_file().open("wb")
        self._process = subprocess.Popen(
            (
                *("unshare", "--mount", "--propagation", "private", "sh", "-c", _BOOT, "sh"),
                *(str(self.disk.path), str(point), *options),
            ),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env={
                "PATH": PATH,
                "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                # Its filter knows no system call younger than itself, such as statmount(2).
                "SYSTEMD_SECCOMP": "0",
                "NOTIFY_SOCKET": "@" + notify.getsockname()[1:].decode(),
                "TERM": "dumb",
            },
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 no threads here
        )
        console.close()
        try:
            self._await_notification(notify, b"X_NSPAWN_LEADER_PID=", timeout)
            if wait:
                self._await_notification(notify, b"READY=1", timeout)
        except BaseException:
            self.kill()
            raise
        finally:
            notify.close()

    def _await_notification(self, notify: socket.socket, wanted: bytes, timeout: float) -> None:
        process = self._process
        assert process is not None
        ended = os.pidfd_open(process.pid)
        try:
            until = time.monotonic() + timeout
            while True:
                left = until - time.monotonic()
                ready = select.select([notify.fileno(), ended], [], [], max(left, 0))[0]
                if notify.fileno() in ready:
                    lines = notify.recv(4096).splitlines()
                    for line in lines:
                        if line.startswith(b"X_NSPAWN_LEADER_PID="):
                            self._leader = int(line.partition(b"=")[2])
                    if any(line.startswith(wanted) for line in lines):
                        return
                elif ready:
                    raise HarnessError(f"the container ended while booting\n{tail(self.console)}")
                else:
                    raise HarnessError(
                        f"the container had not booted after {timeout:g} s\n{tail(self.console)}"
                    )
        finally:
            os.close(ended)

    def wait_for_end(self, timeout: float = BOOT_LIMIT) -> int:
        """Wait until the machine is off; the exit status of systemd-nspawn(1)."""
        assert self._process is not None, "the container is off"
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            text = tail(self.console)
            self.kill()
            raise HarnessError(f"the container was not off after {timeout:g} s\n{text}") from None
        self._process, self._leader = None, 0
        return status

    def poweroff(self, timeout: float = BOOT_LIMIT) -> str:
        """Shut down in order; returns the console from the request to the end."""
        return self._shut_down("poweroff", 0, timeout)

    def reboot(self, *, kernel: str = "", timeout: float = BOOT_LIMIT) -> str:
        """Shut down and boot the same disk again; returns the console of the shutdown."""
        said = self._shut_down("reboot", _REBOOT, timeout)
        self.boot(kernel=kernel, timeout=timeout)
        return said

    def _shut_down(self, verb: str, wanted: int, timeout: float) -> str:
        before = len(self.console)
        self.run("systemctl", verb, "--no-block", timeout=timeout)
        status = self.wait_for_end(timeout)
        said = self.console[before:]
        if status != wanted:
            raise HarnessError(f"{verb}: systemd-nspawn ended with {status}\n{tail(said)}")
        return said

    def kill(self) -> None:
        """End every process at once, as a power cut would; what was written stays written."""
        if self._process is None:
            return
        if self._leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, signal.SIGKILL)
        else:
            os.killpg(self._process.pid, signal.SIGKILL)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)
        self._process, self._leader = None, 0

    def close(self) -> None:
        """Turn it off the hard way and throw its disk away."""
        self.kill()
        discard(self.disk)

    @property
    def is_off(self) -> bool:
        """Whether it is off, and its disk free to be looked into."""
        return self._process is None

    # Inside

    @property
    def leader(self) -> int:
        """The process id, on the host, of the machine's PID 1."""
        assert self._leader, "the container is off"
        return self._leader

    def run(
        self,
        *argv: str,
        check: bool = True,
        input: bytes | str = b"",
        timeout: float = COMMAND_LIMIT,
        user: str = "root",
    ) -> Completed:
        """Run a command in the machine, as `user`, in all its namespaces.

        It is in none of the machine's units or sessions; `unit` runs one that is.
        """
        command = argv if user == "root" else ("runuser", "-u", user, "--", *argv)
        return run(
            *("nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"),
            *("env", "-i", f"PATH={PATH}", "HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb"),
            *command,
            check=check,
            input=input,
            timeout=timeout,
        )

    def journal(self, *arguments: str) -> list[dict[str, str]]:
        """The journal's entries, of this boot unless `arguments` (journalctl's) say otherwise."""
        chosen = arguments or ("-b",)
        listed = self.run("journalctl", "--output=json", "--no-pager", *chosen)
        return [json.loads(line) for line in listed.stdout.splitlines()]

    def messages(self, *arguments: str) -> list[str]:
        """The texts of `journal`."""
        return [str(entry.get("MESSAGE", "")) for entry in self.journal(*arguments)]

    def mounts(self, where: str = "") -> list[tuple[str, str, str]]:
        """Mount points, options and file system types as PID 1 sees them, oldest first."""
        found = []
        for line in Path(f"/proc/{self.leader}/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            fields = left.split()
            if where in ("", fields[4]):
                found.append((fields[4], fields[5], right.split()[0]))
        return found

    def wait_until(self, *argv: str, timeout: float = 20) -> None:
        """Run the command until it exits with 0; HarnessError after `timeout` seconds."""
        until = time.monotonic() + timeout
        while not self.succeeds(*argv):
            if time.monotonic() > until:
                raise HarnessError(f"{' '.join(argv)}: still failing after {timeout:g} s")
            time.sleep(0.05)

    @property
    def console(self) -> str:
        """What this boot has printed, without colours."""
        file = self._console_file()
        if not file.exists():
            return ""
        text = file.read_bytes().decode(errors="replace")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)|\r", "", text)

    def _console_file(self) -> Path:
        return self._place / f"console-{self._boots}"


def die_with_parent() -> None:
    """PR_SET_PDEATHSIG: an interrupted run leaves no container behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _loop_devices() -> Iterator[int]:
    """Numbers of loop devices that exist now, made up to LOOPS where there are fewer."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for number in range(LOOPS):
            if not os.path.exists(f"/dev/loop{number}"):
                # LOOP_CTL_ADD of <linux/loop.h>
                ctypes.CDLL(None).ioctl(control, 0x4C80, number)
            yield number
    finally:
        os.close(control)
