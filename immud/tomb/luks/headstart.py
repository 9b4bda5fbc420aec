"""A head start: a child that has the libraries loaded while udev still looks at a new drive.

That takes as long as udev takes for a drive, and without it the one would come after the
other. No drive is touched before udev has announced it.
"""

import asyncio

from immud.child import Standby
from immud.tomb.luks import unlock

# udev takes less for a drive, seconds, or has more than one to look at.
PATIENCE = 10.0


class HeadStart:
    """At most one child stands by; who unlocks takes it."""

    def __init__(self) -> None:
        self._standby: Standby | None = None
        self._ends: asyncio.TimerHandle | None = None

    def prepare(self) -> None:
        """A drive is coming that may be a tomb's. For a thousand at once, one child."""
        if self._standby is None:
            self._standby = Standby(unlock.prepare, unlock.unlocking)
            self._ends = asyncio.get_running_loop().call_later(PATIENCE, self.close)

    def take(self) -> Standby | None:
        """The child, for the one who asks first."""
        standby, self._standby = self._standby, None
        if self._ends:
            self._ends.cancel()
        return standby

    def close(self) -> None:
        """Nobody came for it, or nobody will."""
        if standby := self.take():
            standby.dismiss()
