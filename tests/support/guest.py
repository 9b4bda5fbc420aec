"""What one does in a machine that is on: commands and waiting, by way of its guest agent."""

import base64
import json
import time
from abc import abstractmethod
from typing import Any

from tests.support.inside import COMMAND_LIMIT, Inside
from tests.support.process import PATH, CommandFailed, Completed, HarnessError
from tests.support.qmp import Connection
from tests.support.stopwatch import STOPWATCH

BOOT_LIMIT = 240.0
"""Seconds until a machine must have finished booting, under TCG on a busy host."""


class Guest(Inside):
    """A machine whose agent answers."""

    boot_limit = BOOT_LIMIT

    @property
    @abstractmethod
    def agent(self) -> Connection:
        """The way to its guest agent."""

    def start(self, *argv: str, input: bytes | str = b"") -> int:
        """Start a command as root and return its process id at once; `finish` waits for it."""
        data = input.encode() if isinstance(input, str) else input
        arguments: dict[str, Any] = {
            "path": "/usr/bin/env",
            "arg": ["-i", f"PATH={PATH}", "HOME=/root", "LC_ALL=C.UTF-8", "TERM=dumb", *argv],
            "capture_output": True,
        }
        if data:
            arguments["input_data"] = base64.b64encode(data).decode()
        pid: int = self.agent.execute("guest-exec", **arguments)["pid"]
        return pid

    def finish(self, pid: int, timeout: float = COMMAND_LIMIT) -> Completed:
        """Wait for a command that `start` started."""
        until = time.monotonic() + timeout
        pause = 0.01
        while True:
            status = self.agent.execute("guest-exec-status", pid=pid)
            if status["exited"]:
                out, err = (
                    base64.b64decode(status.get(name, "")).decode(errors="replace")
                    for name in ("out-data", "err-data")
                )
                return Completed(status.get("exitcode", -status.get("signal", 0)), out, err)
            if time.monotonic() > until:
                raise HarnessError(f"process {pid} of the machine: running after {timeout:g} s")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.2)

    def run(
        self,
        *argv: str,
        check: bool = True,
        input: bytes | str = b"",
        timeout: float = COMMAND_LIMIT,
        user: str = "root",
    ) -> Completed:
        """Run a command in the machine, as `user`, by the guest agent's service.

        Raises CommandFailed for a status other than 0 unless `check` is false.
        """
        command = argv if user == "root" else ("runuser", "-u", user, "--", *argv)
        done = self.finish(self.start(*command, input=input), timeout)
        if check and done.status:
            raise CommandFailed(argv, done.status, done.stdout + done.stderr)
        return done

    def shell(self, script: str, *arguments: str, timeout: float = COMMAND_LIMIT) -> str:
        """What the `sh` script prints; one round trip however long it is."""
        return self.run("sh", "-ec", script, "sh", *arguments, timeout=timeout).stdout

    def wait_until(self, script: str, timeout: float = 30) -> None:
        """Wait until the `sh` script exits with 0; it is tried in the guest, 20 times a second."""
        loop = 'until sh -c "$1" >/dev/null 2>&1; do [ $(cut -d. -f1 /proc/uptime) -lt "$2" ]'
        limit = float(self.run("cut", "-d ", "-f1", "/proc/uptime").stdout) + timeout
        done = self.run(
            *("sh", "-c", f"{loop} || exit 1; sleep 0.05; done", "sh", script, str(int(limit) + 1)),
            check=False,
            timeout=timeout + COMMAND_LIMIT,
        )
        if done.status:
            raise HarnessError(f"{script}: still failing after {timeout:g} s")

    def messages(self, *arguments: str) -> list[str]:
        """The journal's texts, of this boot unless `arguments` (journalctl's) say otherwise."""
        chosen = arguments or ("-b",)
        return self.run(
            "journalctl", "--output=cat", "--no-pager", *chosen, timeout=120
        ).stdout.splitlines()

    def stopwatch(self, where: str, wish: str, timeout: float = 60) -> int:
        """Start measuring how long until `where` is `mounted`, or `gone`; see `measured`.

        `nothing` is stricter than `gone`: no mapping and no loop device is left either.

        Returns when the clock is ready: plug or pull the drive then.
        """
        pid = self.start("python3", "-I", "-c", STOPWATCH, where, wish, str(timeout))
        self.wait_until("test -e /run/stopwatch")
        return pid

    def measured(self, pid: int, timeout: float = 60) -> dict[str, float]:
        """What the stopwatch saw, in seconds of the guest's CLOCK_MONOTONIC.

        `add` and `remove`: the kernel's first such event of a USB drive; `told`: udev's first; and
        what was wished.
        """
        seen: dict[str, float] = json.loads(self.finish(pid, timeout).stdout)
        return seen
