"""Tombs inside tombs: one for everybody's homes, and another for the home of one of them.

A mount over /var/home would hide the one at /var/home/alice. So the inner one is taken away before
the outer one is moved into place, and mounted again on top of it by its own owner, which finds that
the ground it stood on is another. The same when the outer one is pulled out, and for what is in its
place while it is away. It stays unlocked all the time, and who has its files open keeps them.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from immud.child import in_child
from immud.config.rules import within
from immud.early import mountinfo
from immud.early.mountinfo import MountEntry
from immud.tomb.volume import Volume


def ground(table: tuple[MountEntry, ...], target: str) -> int:
    """The id of the mount that the directory of `target` is on, whatever is mounted at `target`."""
    passed = mountinfo.way(table, os.path.dirname(target))
    return passed[-1].id if passed else 0


def depth(target: str) -> int:
    """How far below / a place is: inner ones are deeper than those they are in."""
    return target.count("/")


class Nest:
    """The place of one volume among those of all, which `nests` gives.

    `turn` is shared by all that could come to hide one another; `outer` waits for
    those that are about to be mounted around this one.
    """

    def __init__(
        self,
        volume: Volume,
        nests: Callable[[], Iterable["Nest"]],
        turn: asyncio.Lock,
        outer: Callable[[], Awaitable[None]],
    ) -> None:
        self.volume = volume
        self._nests = nests
        self._turn = turn
        self._outer = outer
        self._ground = 0

    def settle(self) -> None:
        """Remember what the volume is mounted on, or is going to be."""
        self._ground = ground(mountinfo.read(), self.volume.target)

    def uprooted(self) -> bool:
        """Whether that is another one now: nobody has unmounted the volume for its own sake."""
        return self._ground != ground(mountinfo.read(), self.volume.target)

    def inner(self) -> list["Nest"]:
        """Those whose place is below this one's, the deepest first."""
        target = self.volume.target
        below = [n for n in self._nests() if n.volume.target != target]
        below = [n for n in below if within(n.volume.target, target)]
        return sorted(below, key=lambda nest: -depth(nest.volume.target))

    async def in_turn(self, mount: Callable[..., Any], *arguments: Any, timeout: float) -> Any:
        """`mount(*arguments, below)` in a child, while no other is mounted below it or above.

        `below` are the numbers of what has to be out of the way for it.
        """
        await self._outer()
        async with self._turn:
            self.settle()
            return await self._cleared(mount, arguments, timeout)

    async def beneath(self, mount: Callable[..., Any], *arguments: Any, timeout: float) -> Any:
        """The same for what the volume is going to be mounted over, which waits for no other."""
        async with self._turn:
            return await self._cleared(mount, arguments, timeout)

    async def _cleared(
        self, mount: Callable[..., Any], arguments: tuple[Any, ...], timeout: float
    ) -> Any:
        open_inside = [
            (nest, mapping) for nest in self.inner() if (mapping := nest.volume.state().mounted)
        ]
        below = [number for nest, m in open_inside for number in nest.volume.devices(m)]
        for nest, _ in open_inside:
            # Their owners may notice in the middle of it.
            nest._ground = 0
        try:
            return await in_child(mount, *arguments, below, timeout=timeout)
        finally:
            for nest, _ in open_inside:
                if nest.volume.state().mounted:
                    nest.settle()
