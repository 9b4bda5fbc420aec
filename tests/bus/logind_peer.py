"""A process that is org.freedesktop.login1 on a private bus: logind_peer.py ADDRESS

Written with dbus-next's own object server. Told `sleep` on standard input it announces that, waits
until nobody holds a lock, and prints `asleep`; told `wake` it announces the end of it. It prints
`ready`, and `locked` for each lock that is given.
"""

import asyncio
import os
import select
import sys

from dbus_next.aio import MessageBus
from dbus_next.constants import PropertyAccess
from dbus_next.service import ServiceInterface, dbus_property, method, signal


class Manager(ServiceInterface):
    def __init__(self) -> None:
        super().__init__("org.freedesktop.login1.Manager")
        self.locks: list[int] = []

    @method()
    def Inhibit(  # noqa: N802
        self,
        what: "s",  # noqa: F821
        who: "s",  # noqa: F821
        why: "s",  # noqa: F821
        mode: "s",  # noqa: F821
    ) -> "h":  # noqa: F821
        reading, writing = os.pipe()
        self.locks.append(reading)
        asyncio.get_running_loop().call_later(1, os.close, writing)  # it is sent by then
        print("locked", what, who, mode, flush=True)
        return writing

    @dbus_property(access=PropertyAccess.READ)
    def InhibitDelayMaxUSec(self) -> "t":  # noqa: N802, F821
        return 3_000_000

    @signal()
    def PrepareForSleep(self, start) -> "b":  # noqa: N802, F821
        return start

    def held(self) -> bool:
        """Whether somebody has the other end of a lock."""
        poll = select.poll()
        for fd in self.locks:
            poll.register(fd, select.POLLHUP)
        return len(poll.poll(0)) < len(self.locks)


async def main(address: str) -> None:
    bus = await MessageBus(bus_address=address, negotiate_unix_fd=True).connect()
    manager = Manager()
    bus.export("/org/freedesktop/login1", manager)
    print("ready", flush=True)
    await bus.request_name("org.freedesktop.login1")
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while word := (await reader.readline()).strip():
        manager.PrepareForSleep(word == b"sleep")
        while word == b"sleep" and manager.held():
            await asyncio.sleep(0.02)
        print("asleep" if word == b"sleep" else "awake", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
