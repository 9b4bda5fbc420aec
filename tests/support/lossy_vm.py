"""A virtual machine whose disks lose what was not flushed when the power is cut.

Its root disk and every drive that is plugged into it are `lossy.Disk`s. To be repeatable on any
host, however slow, the power goes after a number of writes to one of them, not of seconds.
"""

import itertools
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.drive import Drive
from tests.support.guest import BOOT_LIMIT
from tests.support.image import Image
from tests.support.lossy import Disk
from tests.support.process import HarnessError, run
from tests.support.vm import VM, State

ROOT = "root"
PROMPT = "debian login: "


class LossyVM(VM):
    """A machine as `VM`, with disks that lose things as `seed` has it.

    `lost` is what became of the disks whenever it went off (see `Disk.settle`); `story` is what
    has been done to it, for whoever has to understand how it failed.
    """

    def __init__(self, image: Image | State, seed: str) -> None:
        self._seed = seed
        self._disks: dict[str, Disk] = {}
        self._served = itertools.count(1)
        self.lost: list[dict[str, dict[str, int]]] = []
        self.story: list[str] = []
        super().__init__(image)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error:
            error.add_note("\n".join([f"seed {self._seed}", *self.story]))
        super().__exit__(kind, error, trace)

    @property
    def disk(self) -> Path:
        """The file its root disk is in, for when it is off."""
        return self._overlay

    def _make_disk(self) -> None:
        below = self._state.disk if self._state else self.image.disk.path
        run("qemu-img", "convert", "-O", "raw", str(below), str(self._overlay), timeout=300)

    def _disk(self) -> dict[str, Any]:
        return self._serve(ROOT, self._overlay)

    def _medium(self, drive: Drive) -> dict[str, Any]:
        return self._serve(drive.serial, drive.path)

    def _serve(self, name: str, path: Path) -> dict[str, Any]:
        seed = f"{self._seed} {next(self._served)}"
        self._disks[name] = disk = Disk(path, self._place / f"{name}.socket", seed)
        return disk.node

    def _off(self) -> None:
        super()._off()
        self.lost.append({name: disk.settle() for name, disk in self._disks.items()})
        self._disks.clear()

    def yank(self, drive: Drive) -> None:
        super().yank(drive)
        self._disks.pop(drive.serial).settle()

    def close(self) -> None:
        try:
            super().close()
        finally:
            for disk in self._disks.values():
                disk.kill()

    def cut_after(self, writes: int, disk: str = ROOT) -> None:
        """Let so many more writes to `disk` happen, and then no more: see `cut`."""
        self._disks[disk].cut_after(writes)

    def cut(self, pid: int | None, timeout: float = BOOT_LIMIT) -> bool:
        """Take the power away once a disk has had its writes, or the command `pid` has ended.

        False if it had come to its end. Without `pid`, that is when `timeout` seconds are over.
        """
        ended, until = False, time.monotonic() + timeout
        while not (cut := any(disk.is_cut(0.1) for disk in self._disks.values())):
            if ended or time.monotonic() > until:
                break
            if pid is not None:
                # It may be waiting for the disk that is gone just now.
                with suppress(HarnessError):
                    ended = self.agent.execute("guest-exec-status", 5, pid=pid)["exited"]
        self.cut_power()
        return cut

    def boot_to_prompt(self, drives: Sequence[Drive] = ()) -> None:
        """Boot to the end, which has to be with a prompt to log in at."""
        before = len(self.console)
        self.boot(drives=drives)
        self.wait_for_console(PROMPT, after=before)
