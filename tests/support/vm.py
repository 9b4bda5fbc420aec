"""A disk booted by QEMU: its own kernel, udev, the device-mapper, drives to plug in and pull out.

    with VM(image.installed()) as machine:
        machine.boot()
        machine.plug(drive)
        machine.run("ls", "/dev/disk/by-uuid")
        machine.yank(drive)

Under TCG a boot takes half a minute; `save` and `restore` make a booted machine last for many
tests. One machine runs at a time, on all cores.
"""

import itertools
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support import cache, qemu, stages
from tests.support.drive import Drive
from tests.support.guest import BOOT_LIMIT, Guest
from tests.support.image import Image
from tests.support.process import HarnessError, tail
from tests.support.qmp import Connection

COMMAND_LINE = (
    "root=/dev/vda ro console=ttyS0 systemd.show_status=yes "
    "mitigations=off lsm=landlock,lockdown,yama,integrity,apparmor apparmor=0"
)
"""What under TCG takes longer than it is worth is off.

Mitigations: the processor that is emulated would need a second set of page tables, and that is a
fifth of a boot. BPF as a security module: systemd compiles a program for it, and nothing here has
RestrictFileSystems=. AppArmor's profiles are half of a boot; `append="apparmor=1"` has them.
"""

_PANIC = "Kernel panic - not syncing"
_EMULATORS_OWN = re.compile(rf"\A(?!.*Run /init).*Oops: int3.*{_PANIC}", re.DOTALL)
"""Before the first program ran, one processor met a breakpoint by which the other one had changed
the kernel's code. QEMU's TCG does that, seldom; nothing that is tested here has begun by then."""


class State:
    """A booted machine, saved: the disk as it was then, and the memory beside it."""

    def __init__(self, place: Path, image: Image) -> None:
        self.disk, self.memory, self.image = place / "disk.qcow2", place / "memory", image
        self.append = place / "append"


def booted(image: Image, name: str) -> State:
    """`image`, booted to its end and saved; cached."""

    def build(aside: Path) -> None:
        with VM(image) as machine:
            machine.boot()
            machine.save(aside)

    here = Path(__file__).parent
    parts = (image.key, qemu.version(), here / "vm.py", here / "qemu.py")
    place = cache.entry(f"booted-{name}", cache.digest(*parts), f"booting Debian ({name})", build)
    return State(place, image)


class VM(Guest):
    """A machine on an overlay of `image`'s disk, or of a saved `State`'s; thrown away by `close`.

    It is off at first. `run` needs it booted. `options` are QEMU's, for what else it has.
    """

    def __init__(self, image: Image | State, *, options: Sequence[str] = ()) -> None:
        self._state = image if isinstance(image, State) else None
        self.image = image.image if isinstance(image, State) else image
        self._options = options
        self._place = Path(tempfile.mkdtemp(prefix="vm-", dir=cache.scratch()))
        self._overlay = self._place / "disk.qcow2"
        self._make_disk()
        self._console = self._place / "console"
        self._console.touch()
        self._process: qemu.Process | None = None
        self._append = ""
        self._numbers = itertools.count(1)
        self._plugged: dict[Path, int] = {}

    def __enter__(self) -> "VM":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, AssertionError | HarnessError):
            error.add_note(f"console of the machine:\n{tail(self.console, 60)}")
        self.close()

    # What its disks are on, as options of QMP's blockdev-add

    def _make_disk(self) -> None:
        if self._state:
            qemu.overlay(self._overlay, self._state.disk, "qcow2")
        else:
            qemu.overlay(self._overlay, self.image.disk.path, "raw")

    def _disk(self) -> dict[str, Any]:
        return {"driver": "qcow2", "file": _file(self._overlay)}

    def _medium(self, drive: Drive) -> dict[str, Any]:
        return {"driver": "raw", "file": _file(drive.path)}

    # Turning it on and off

    def boot(
        self,
        *,
        append: str = "",
        drives: Sequence[Drive] = (),
        wait: bool = True,
        timeout: float = BOOT_LIMIT,
    ) -> None:
        """Turn it on with `drives` plugged in; with `wait`, return when booting has finished.

        `append` goes on the kernel's command line. Finished does not mean well: ask
        `system_state`. Raises HarnessError with the console's end after `timeout` seconds.
        """
        began, before = time.monotonic(), len(self.console)
        self._turn_on(append, drives)
        if wait:
            try:
                self.wait_for_agent(timeout)
            except HarnessError:
                if not _EMULATORS_OWN.search(self.console[before:]):
                    raise
                stages.announce("# the emulator broke the kernel as it began: once more")
                self.cut_power()
                self._turn_on(append, drives)
                self.wait_for_agent(timeout)
            self.system_state(timeout - (time.monotonic() - began))
            self.run("udevadm", "settle", timeout=timeout)

    def _turn_on(self, append: str, drives: Sequence[Drive]) -> None:
        self._start(append)
        for drive in drives:
            self.plug(drive)
        self.qmp.execute("cont")

    def restore(self) -> None:
        """Go on where the saved state was left; a second or two."""
        assert self._state is not None, "this machine was not made from a saved state"
        self._start(self._state.append.read_text(), incoming=self._state.memory)
        until = time.monotonic() + 60
        while self.qmp.execute("query-status")["status"] == "inmigrate":
            if time.monotonic() > until:
                raise HarnessError("the saved state was not read within 60 s")
            time.sleep(0.02)
        self.qmp.execute("cont")
        if not self.agent.synchronise(next(self._numbers), 30):
            raise HarnessError("the guest agent does not answer after the restore")

    def _start(self, append: str, incoming: Path | None = None) -> None:
        assert self._process is None, "the machine is on already"
        self._append = append
        self._process = qemu.Process(
            disk=self._disk(),
            kernel=self.image.kernel,
            initrd=self.image.initrd,
            append=f"{COMMAND_LINE} {append}".strip(),
            console=self._console,
            incoming=incoming,
            options=self._options,
        )

    @property
    def process(self) -> qemu.Process:
        assert self._process is not None, "the machine is off"
        return self._process

    @property
    def qmp(self) -> Connection:
        return self.process.qmp

    @property
    def agent(self) -> Connection:
        return self.process.agent

    def wait_for_agent(self, timeout: float = BOOT_LIMIT) -> None:
        """Wait until the guest agent answers; not longer than its kernel lives."""
        until, before = time.monotonic() + timeout, self.console.count(_PANIC)
        while not self.qmp.wait_for_event(
            lambda event: event["event"] == "VSERPORT_CHANGE" and event["data"]["open"], 1
        ):
            if self.console.count(_PANIC) > before:
                raise HarnessError(f"the kernel has stopped\n{tail(self.console)}")
            if time.monotonic() > until:
                raise HarnessError(f"no guest agent after {timeout:g} s\n{tail(self.console)}")
        if not self.agent.synchronise(next(self._numbers), 60):
            raise HarnessError(f"the guest agent does not answer\n{tail(self.console)}")

    def wait_for_console(self, wanted: str, timeout: float = BOOT_LIMIT, *, after: int = 0) -> None:
        """Wait until the serial console has printed text that the pattern `wanted` matches.

        Its first `after` characters do not count.
        """
        until = time.monotonic() + timeout
        while not re.search(wanted, self.console[after:]):
            if time.monotonic() > until:
                raise HarnessError(f"no {wanted!r} after {timeout:g} s\n{tail(self.console)}")
            time.sleep(0.1)

    def poweroff(self, timeout: float = BOOT_LIMIT) -> str:
        """Shut down in order; returns the console from the request to the end."""
        return self._shut_down("poweroff", timeout)

    def reboot(
        self, *, append: str = "", drives: Sequence[Drive] = (), timeout: float = BOOT_LIMIT
    ) -> str:
        """Shut down and boot the same disk; returns the console of the shutdown."""
        said = self._shut_down("reboot", timeout)
        self.boot(append=append, drives=drives, timeout=timeout)
        return said

    def _shut_down(self, verb: str, timeout: float) -> str:
        before = len(self.console)
        self.start("systemctl", verb, "--no-block")
        if not self.process.wait(timeout):
            raise HarnessError(f"{verb}: still on after {timeout:g} s\n{tail(self.console)}")
        self._off()
        return self.console[before:]

    def sleep_and_wake(self, timeout: float = BOOT_LIMIT) -> None:
        """Wait until it sleeps (ACPI S3, for which somebody asked), and wake it up."""
        if self.qmp.wait_for_event(lambda event: event["event"] == "SUSPEND", timeout) is None:
            raise HarnessError(f"still awake after {timeout:g} s\n{tail(self.console)}")
        self.qmp.execute("system_wakeup")
        until = time.monotonic() + timeout
        # What is said to it while it wakes up may be lost.
        while not self.agent.synchronise(next(self._numbers), 5):
            if time.monotonic() > until:
                raise HarnessError(f"no agent {timeout:g} s after waking\n{tail(self.console)}")

    def cut_power(self) -> None:
        """End it between two instructions; what its kernel had not written is lost."""
        self.process.kill()
        self._off()

    def _off(self) -> None:
        self._process = None
        self._plugged.clear()

    def close(self) -> None:
        """Cut the power and throw the overlay away."""
        if self._process is not None:
            self.cut_power()
        shutil.rmtree(self._place)

    def save(self, place: Path) -> State:
        """Write the running machine's state into the directory `place`; it is off afterwards.

        No drive may be plugged in.
        """
        assert not self._plugged, "a state is saved without drives"
        state = State(place, self.image)
        self.qmp.execute("stop")
        self.qmp.execute("migrate-set-parameters", max_bandwidth=1 << 40)
        self.qmp.execute("migrate", uri=f"exec:cat >{state.memory}")
        until = time.monotonic() + 120
        while (status := self.qmp.execute("query-migrate")["status"]) != "completed":
            if status in ("failed", "cancelled") or time.monotonic() > until:
                raise HarnessError(f"saving the machine's state: {status}")
            time.sleep(0.05)
        self.qmp.execute("quit")
        self.process.wait(30)
        self._off()
        shutil.copyfile(self._overlay, state.disk)
        state.append.write_text(self._append)
        return state

    # Drives

    def plug(self, drive: Drive, *, read_only: bool = False) -> None:
        """Plug the drive into a USB port. Several may be, each once.

        With `read_only` its switch is on: it says so, and takes no writes.
        """
        assert drive.path not in self._plugged, "the drive is plugged in already"
        number = next(self._numbers)
        self.qmp.execute(
            "blockdev-add",
            node_name=f"drive{number}",
            read_only=read_only,
            **self._medium(drive),
        )
        self.qmp.execute(
            "device_add",
            driver="usb-storage",
            bus="usb.0",
            id=f"usb{number}",
            drive=f"drive{number}",
            serial=drive.serial,
        )
        self._plugged[drive.path] = number

    def yank(self, drive: Drive) -> None:
        """Pull the drive out. The guest isn't asked, and isn't waited for."""
        number = self._plugged.pop(drive.path)
        self.qmp.execute("device_del", id=f"usb{number}")
        gone = self.qmp.wait_for_event(
            lambda event: (
                event["event"] == "DEVICE_DELETED" and event["data"].get("device") == f"usb{number}"
            ),
            30,
        )
        if gone is None:
            raise HarnessError("QEMU did not let go of the drive within 30 s")
        self.qmp.execute("blockdev-del", node_name=f"drive{number}")

    def grow(self, drive: Drive, size: int) -> None:
        """Make a plugged drive larger, in bytes; the guest sees it when it looks again."""
        node = f"drive{self._plugged[drive.path]}"
        self.qmp.execute("block_resize", node_name=node, size=size)

    @property
    def console(self) -> str:
        """What the serial console has printed in all boots, without colours."""
        text = self._console.read_bytes().decode(errors="replace")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)|\r", "", text)


def _file(path: Path) -> dict[str, Any]:
    return {"driver": "file", "filename": str(path)}
