"""What one asks of a machine that is on, a container or a virtual one, by commands in it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from tests.support.process import Completed

COMMAND_LIMIT = 60.0
"""Seconds a command may take, unless it is said."""


class Inside(ABC):
    """A machine that commands can be run in. `boot_limit` is how long it may take to boot, s."""

    boot_limit: float

    @abstractmethod
    def run(
        self,
        *argv: str,
        check: bool = True,
        input: bytes | str = b"",
        timeout: float = COMMAND_LIMIT,
        user: str = "root",
    ) -> Completed:
        """Run a command in the machine, as `user`.

        Raises CommandFailed for a status other than 0 unless `check` is false.
        """

    def unit(
        self, *argv: str, options: Sequence[str] = (), timeout: float = COMMAND_LIMIT
    ) -> Completed:
        """Run a command as a transient service (systemd-run --wait --pipe) with `options`."""
        return self.run(
            *("systemd-run", "--quiet", "--wait", "--pipe", "--collect", *options, "--", *argv),
            check=False,
            timeout=timeout,
        )

    def succeeds(self, *argv: str) -> bool:
        """Whether the command exits with 0."""
        return self.run(*argv, check=False).status == 0

    def system_state(self, timeout: float = 0) -> str:
        """What `systemctl is-system-running --wait` says: `running`, `degraded` …"""
        asked = ("systemctl", "is-system-running", "--wait")
        return self.run(*asked, check=False, timeout=timeout or self.boot_limit).stdout.strip()

    def failed_units(self) -> list[str]:
        """The names of the units that failed."""
        listed = self.run("systemctl", "list-units", "--failed", "--plain", "--no-legend")
        return [line.split()[0] for line in listed.stdout.splitlines()]
