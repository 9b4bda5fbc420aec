"""A process that is immud on the bus and has nothing to do: idle_peer.py ADDRESS"""

from immud import lean

lean.block()

import asyncio  # noqa: E402
import sys  # noqa: E402

import pyudev  # noqa: E402

from immud.bus.link import Link  # noqa: E402
from tests.bus.memory import MemoryService  # noqa: E402


async def main(address: str) -> None:
    monitor = pyudev.Monitor.from_netlink(pyudev.Context())
    monitor.filter_by("block")
    monitor.start()
    task = asyncio.ensure_future(Link(MemoryService(), address=address).run())
    await asyncio.sleep(1)
    print("ready", flush=True)
    await task


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
