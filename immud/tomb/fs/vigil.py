"""An eye on the file system of an open tomb, opened when there is reason to look."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from immud.child import in_child
from immud.errors import ImmudError
from immud.tomb.fs import health
from immud.tomb.fs.health import Health
from immud.tomb.luks import dm
from immud.tomb.volume import Volume

# From a word of the kernel to the look at what it was about, seconds: it is said before it
# is so, and what is said a hundred times is looked at once.
DOUBT = 0.2
PATIENCE = 5.0


class Vigil:
    """What was seen last is `health`; `changed` is called after a look that was not asked for."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.health = Health()
        self._changed = changed
        self._down = False
        self._task: asyncio.Task[None] | None = None

    def look(self, volume: Volume, mounted: dm.Mapping | None) -> None:
        """See how the volume is, of which `mounted` is in its place."""
        # One that has shut down stays so until it is mounted anew.
        self._down = self._down and mounted is not None
        self.health = health.look(mounted, volume.target, down=self._down)

    def doubt(self, volume: Volume) -> None:
        """The kernel has something to say about the open volume: look soon."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._examine(volume), name=f"examine tomb {volume.config.name}"
            )

    def stop(self) -> None:
        if self._task:
            self._task.cancel()

    async def _examine(self, volume: Volume) -> None:
        try:
            await asyncio.sleep(DOUBT)
            with suppress(ImmudError, OSError):
                down = await in_child(health.is_down, volume.target, timeout=PATIENCE)
                self._down = self._down or down
            self.look(volume, volume.state().mounted)
            self._changed()
        finally:
            self._task = None
