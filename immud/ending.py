"""The end of the whole system: to know of it, and to have it wait for what is to be closed."""

import asyncio

from immud.child import in_child
from immud.early import notify, pid1
from immud.errors import ImmudError

# systemd is told so often, and so many times, that there is more to do: for ten minutes at most.
# Who says nothing for as long as TimeoutStopSec= is killed.
AT_WORK, SILENCE, TIMES = 10.0, 30.0, 60


async def system_stops() -> bool:
    """Whether the whole system is on its way down, and not just this service."""
    try:
        return bool(await in_child(pid1.system_state, timeout=5) == "stopping")
    except (ImmudError, OSError, RuntimeError):
        return False


async def take_time() -> None:
    """Until this is cancelled. A slow stick with much to write takes minutes to be unmounted."""
    for _ in range(TIMES):
        notify.more_time(SILENCE)
        await asyncio.sleep(AT_WORK)
