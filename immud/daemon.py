"""Phase 2: the long-running half of the same process."""

import asyncio
import signal


def main() -> None:
    """Serve until the service manager says stop."""
    asyncio.run(_serve())


async def _serve() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
