"""A process that is org.freedesktop.PolicyKit1 on a private bus.

    polkit_peer.py ADDRESS yes|no|challenge|hang

Written with dbus-next's own object server, so that it shares nothing with what it tests.
It prints `ready`, then the action, flags and subject of each question.
"""

import asyncio
import sys

from dbus_next.aio import MessageBus
from dbus_next.service import ServiceInterface, method

ANSWERS = {"yes": [True, False], "no": [False, False], "challenge": [False, True]}


class Authority(ServiceInterface):
    def __init__(self, answer: str) -> None:
        super().__init__("org.freedesktop.PolicyKit1.Authority")
        self._answer = answer

    @method()
    async def CheckAuthorization(  # noqa: N802
        self,
        subject: "(sa{sv})",  # noqa: F722
        action: "s",  # noqa: F821
        details: "a{ss}",  # noqa: F722
        flags: "u",  # noqa: F821
        cancel: "s",  # noqa: F821
    ) -> "(bba{ss})":  # noqa: F722
        print(action, flags, subject[0], sorted(subject[1]), flush=True)
        if self._answer == "hang":
            await asyncio.sleep(3600)
        authorized, challenge = ANSWERS[self._answer]
        # With permission to ask, somebody types the right password.
        if challenge and flags & 1:
            authorized = True
        return [authorized, challenge, {}]


async def main(address: str, answer: str) -> None:
    bus = await MessageBus(bus_address=address).connect()
    bus.export("/org/freedesktop/PolicyKit1/Authority", Authority(answer))
    await bus.request_name("org.freedesktop.PolicyKit1")
    print("ready", flush=True)
    await bus.wait_for_disconnect()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
