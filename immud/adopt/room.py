"""Whether what has to be copied fits where it goes, asked before the first effect."""

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass

from immud.adopt import copying, refuse
from immud.adopt.facts import parent
from immud.adopt.steps import Copy, Step, TakeBack
from immud.make.copying import size


@dataclass(frozen=True, slots=True)
class Room:
    """What copying `path` adds to the file system that `place` is on, and what is free on that.

    In bytes. `device` is that file system's number (st_dev).
    """

    path: str
    place: str
    needed: int
    free: int
    device: int = 0


def check(root: int, steps: tuple[Step, ...], told: copying.Told) -> None:
    """Raise ImmudError where a copy would fill a file system. Takes as long as du(1) does."""
    copies = [step for step in steps if isinstance(step, Copy)]
    if copies:
        told("measuring")
        with copying.clone_attached():
            judge(_measured(root, step, steps) for step in copies)


def judge(rooms: Iterable[Room]) -> None:
    """Raise where all that goes to one file system is more than that has room for. Pure."""
    by_device: dict[int, list[Room]] = {}
    for room in rooms:
        by_device.setdefault(room.device, []).append(room)
    for each in by_device.values():
        place, free = each[0].place, each[0].free
        # How much a file takes differs between file systems, and logs need some of it too.
        if sum(room.needed for room in each) > free * 95 // 100:
            refuse.no_room([(room.path, room.needed) for room in each], place, free)


def _measured(root: int, step: Copy, steps: tuple[Step, ...]) -> Room:
    # The name where it is going to be: the hidden directory is next to that.
    place = parent(parent(step.place))
    there = copying.seen(root, f"{place.rstrip('/')}/.")
    space = os.statvfs(there)
    # What an interrupted run copied.
    taken = [s.path for s in steps if isinstance(s, TakeBack) and s.place == step.place]
    copied = sum(_size(copying.seen(root, path)) for path in (step.place, *taken))
    return Room(
        path=step.path,
        place=place,
        needed=max(_size(copying.seen(root, step.path)) - copied, 0),
        free=space.f_bavail * space.f_frsize,
        device=os.stat(there).st_dev,
    )


def _size(path: str) -> int:
    return asyncio.run(size(path)) if os.path.isdir(path) else 0
