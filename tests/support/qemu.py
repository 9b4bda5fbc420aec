"""The QEMU process: its command line, KVM where it works, one at a time."""

import contextlib
import functools
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support import cache
from tests.support.container import die_with_parent
from tests.support.process import PATH, HarnessError, run, tail
from tests.support.qmp import Connection, Disconnected

BINARY = "qemu-system-x86_64"
CPUS = 2
MEMORY = 1024
"""MiB."""

TCG = ("-accel", "tcg,thread=multi", "-cpu", "Nehalem,-cx16")
"""QEMU 7.2's cmpxchg16b panics 6.12 guests under TCG: hence no cx16."""
KVM = ("-accel", "kvm", "-cpu", "host")


@functools.cache
def accelerator(kernel: Path, initrd: Path) -> tuple[str, ...]:
    """QEMU's options for KVM if `kernel` really starts with it, else for TCG.

    /dev/kvm alone proves nothing: nested, it may stop at the first instruction it cannot
    emulate. $IMMUD_ACCEL=tcg decides without trying.
    """
    if os.environ.get("IMMUD_ACCEL") == "tcg" or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return TCG
    try:
        tried = run(
            *(BINARY, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-machine", "q35", *KVM, "-m", "512", "-serial", "stdio"),
            *("-kernel", str(kernel), "-initrd", str(initrd)),
            *("-append", "console=ttyS0 panic=-1 rdinit=/nothing init=/nothing root=none"),
            check=False,
            timeout=20,
        )
    except HarnessError:
        return TCG
    return KVM if "Kernel panic" in tried.stdout else TCG


def version() -> str:
    """What QEMU says it is; a saved state belongs to one version and one accelerator."""
    return run(BINARY, "--version").stdout + str(os.environ.get("IMMUD_ACCEL"))


class Process:
    """QEMU, running but not yet started (-S): `qmp` and `agent` are connected.

    `disk` is what the root disk is on, as options of QMP's blockdev-add; `console` gets what is
    written to the serial line; `incoming` is the file of a saved state; `options` are
    more of QEMU's.
    """

    def __init__(
        self,
        *,
        disk: Mapping[str, Any],
        kernel: Path,
        initrd: Path,
        append: str,
        console: Path,
        incoming: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self._lock = contextlib.ExitStack()
        # They take both cores each.
        self._lock.enter_context(cache.locked("qemu", "one virtual machine at a time"))
        qmp, qmp_theirs = socket.socketpair()
        agent, agent_theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 as long as QEMU
        arguments = [
            *(BINARY, "-nodefaults", "-no-user-config", "-display", "none", "-S"),
            *("-machine", "q35,sata=off,smbus=off", *accelerator(kernel, initrd)),
            *("-smp", str(CPUS), "-m", str(MEMORY)),
            *("-action", "reboot=shutdown"),
            *("-kernel", str(kernel), "-initrd", str(initrd), "-append", append),
            *("-blockdev", json.dumps({"node-name": "root", **disk})),
            *("-device", "virtio-blk-pci,drive=root"),
            *("-object", "rng-random,filename=/dev/urandom,id=rng"),
            *("-device", "virtio-rng-pci,rng=rng", "-device", "qemu-xhci,id=usb,p2=8,p3=8"),
            *("-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=agent,fd={agent_theirs.fileno()}"),
            *("-device", "virtserialport,id=agent,chardev=agent,name=org.qemu.guest_agent.0"),
            *("-chardev", f"file,id=console,append=on,path={console}"),
            *("-serial", "chardev:console"),
            *("-chardev", f"socket,id=qmp,fd={qmp_theirs.fileno()}"),
            *("-mon", "chardev=qmp,mode=control"),
            *options,
        ]
        if incoming is not None:
            arguments += ["-incoming", f"exec:cat {incoming}"]
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            pass_fds=(qmp_theirs.fileno(), agent_theirs.fileno()),
            env={"PATH": PATH},
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 no threads here
        )
        qmp_theirs.close()
        agent_theirs.close()
        self.qmp = Connection(qmp, "QEMU")
        self.agent = Connection(agent, "guest agent")
        try:
            self.qmp.negotiate()
        except Disconnected:
            self.kill()
            raise HarnessError(f"QEMU did not start:\n{self.said}") from None

    @property
    def said(self) -> str:
        """What QEMU itself printed."""
        self._errors.seek(0)
        return tail(self._errors.read().decode(errors="replace"))

    def wait(self, timeout: float) -> bool:
        """Whether QEMU has ended by itself within `timeout` seconds."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self._released()
        return True

    def kill(self) -> None:
        """End QEMU at once: to the guest, a power cut."""
        self._process.kill()
        self._process.wait(20)
        self._released()

    def _released(self) -> None:
        for connection in (self.qmp, self.agent) if hasattr(self, "qmp") else ():
            connection.close()
        self._lock.close()


def overlay(path: Path, below: Path, kind: str) -> None:
    """An empty qcow2 file at `path` over `below`, whose format is `kind` (raw, qcow2)."""
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(below), "-F", kind, str(path))
