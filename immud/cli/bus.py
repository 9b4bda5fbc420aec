"""Talking to the daemon from a command."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from immud.client import Client

T = TypeVar("T")


def talk(work: "Callable[[Client], Awaitable[T]]") -> T:
    """What `work` returns, given a connection to the daemon. Raises Unreachable without one."""
    from immud import lean  # noqa: PLC0415 - all of this only for what needs the daemon

    lean.block()
    import asyncio  # noqa: PLC0415

    from immud.client import Client  # noqa: PLC0415

    async def connected() -> T:
        async with Client() as client:
            return await work(client)

    return asyncio.run(connected())
