"""A process that waits for job 1 of immud until it is killed: dying_peer.py ADDRESS"""

import asyncio
import sys

from immud.bus.adapter import Connection


async def main(address: str) -> None:
    connection = await Connection.open(address)
    call = asyncio.ensure_future(
        connection.call(
            "org.immud1", "/org/immud1", "org.immud1.Manager", "WaitForJob", "ot",
            "/org/immud1/job/1", 0,
        )
    )  # fmt: skip
    await asyncio.sleep(0.05)
    print("ready", flush=True)
    await call


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
