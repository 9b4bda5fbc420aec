"""Which of udev's events the daemon is woken for."""

import asyncio
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from immud.early import kernel
from tests.benchmarks.flood import prepare
from tests.support.namespaces import in_namespace
from tests.support.uevents import DISKS, message, sender, volume


async def told_of(
    messages: Iterable[bytes], last: str, names: frozenset[str] | None = None, room: int = 0
) -> list[tuple[str, str]]:
    """What a watch tells when these are sent, until it tells of `last`: what happened to which.

    `names` are those of the drives that are wanted, and `room` the bytes its socket has for events.
    """
    # Not what the tests' own process imports.
    from immud.watch.devices import DeviceEvent  # noqa: PLC0415
    from immud.watch.udev import UdevWatch  # noqa: PLC0415

    told: list[DeviceEvent] = []
    watch = UdevWatch(told.append)
    watch.start(names)
    told.clear()
    if room:
        assert watch._peek
        watch._peek.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    with sender() as send:
        for each in messages:
            send(each)
    async with asyncio.timeout(10):
        while not told or told[-1].device.devnode != last:
            await asyncio.sleep(0)
    watch.close()
    return [(str(event.what), event.device.devnode) for event in told]


@in_namespace
def test_of_what_our_rule_tagged_and_nothing_else() -> None:
    prepare(3)
    tags = ("", "systemd", "immud")
    messages = [message(volume(number), tag) for number, tag in enumerate(tags)]
    assert asyncio.run(told_of(messages, "/dev/flood2")) == [("added", "/dev/flood2")]


async def told_in_turns(count: int) -> list[int]:
    """How many of that many volumes, all sent before, are told of in each turn of the loop."""
    from immud.watch.udev import UdevWatch  # noqa: PLC0415

    told: list[object] = []
    watch = UdevWatch(told.append)
    watch.start()
    told.clear()
    with sender() as send:
        for number in range(count):
            send(message(volume(number)))
    turns = []
    async with asyncio.timeout(10):
        while sum(turns) < count:
            before = len(told)
            await asyncio.sleep(0)
            turns.append(len(told) - before)
    watch.close()
    return turns


@in_namespace
def test_a_flood_keeps_nobody_waiting() -> None:
    from immud.watch.udev import PORTION  # noqa: PLC0415

    prepare(2 * PORTION + 1)
    assert max(asyncio.run(told_in_turns(2 * PORTION + 1))) == PORTION


@in_namespace
def test_of_what_is_wanted_or_known_and_nothing_else() -> None:
    prepare(3)
    wanted, last = volume(1), volume(2)
    sent = (
        *(volume(number) for number in range(2)),
        # It has lost its name, and is still that drive.
        {**wanted, "ACTION": "change", "ID_FS_UUID": "another"},
        {**wanted, "ACTION": "remove", "ID_FS_UUID": "another"},
        {**wanted, "ID_FS_UUID": "another"},
        last,
    )
    names = frozenset({wanted["ID_FS_UUID"].upper(), last["ID_FS_UUID"]})
    assert asyncio.run(told_of(map(message, sent), last["DEVNAME"], names)) == [
        ("added", "/dev/flood1"),
        ("changed", "/dev/flood1"),
        ("removed", "/dev/flood1"),
        ("added", "/dev/flood2"),
    ]


def enter(number: int) -> None:
    """Put one of the volumes into sysfs and udev's database as well, as far as libudev looks."""
    # sd-device refuses what is no sysfs.
    os.environ["SYSTEMD_DEVICE_VERIFY_SYSFS"] = "0"
    there, entry = DISKS / f"flood{number}", volume(number)
    (there / "uevent").write_text(f"MAJOR=240\nMINOR={number}\nDEVNAME=flood{number}\n")
    (there / "subsystem").symlink_to("/sys/class/block")
    kernel.mount("tmpfs", "/sys/dev/block", "tmpfs", 0)
    Path(f"/sys/dev/block/240:{number}").symlink_to(there)
    tags = Path("/run/udev/tags/immud")
    tags.mkdir(parents=True)
    (tags / f"b240:{number}").touch()
    data = Path("/run/udev/data")
    data.mkdir()
    uuid = entry["ID_FS_UUID"]
    (data / f"b240:{number}").write_text(f"I:1\nE:ID_FS_UUID={uuid}\nG:immud\nQ:immud\nV:1\n")


@in_namespace
def test_what_events_were_lost_is_looked_up() -> None:
    prepare(3)
    enter(1)
    wanted = volume(1)
    # More than the socket has room for, and what matters at the end.
    sent = [message(volume(2))] * 100 + [message(wanted)]
    names = frozenset({wanted["ID_FS_UUID"]})
    told = asyncio.run(told_of(sent, wanted["DEVNAME"], names, room=4096))
    assert told == [("added", wanted["DEVNAME"])]
