"""Which of udev's events the daemon is woken for."""

import asyncio
import os
import socket
from pathlib import Path

from immud.early import kernel
from tests.benchmarks.flood import prepare
from tests.support.namespaces import in_namespace
from tests.support.uevents import DISKS, message, sender, volume


async def told_of() -> list[str]:
    from immud.watch.devices import DeviceEvent  # noqa: PLC0415 not what the tests' process imports
    from immud.watch.udev import UdevWatch  # noqa: PLC0415

    told: list[DeviceEvent] = []
    watch = UdevWatch(told.append)
    watch.start()
    told.clear()
    with sender() as send:
        for number, tag in enumerate(("", "systemd", "immud")):
            send(message(volume(number), tag))
    async with asyncio.timeout(10):
        while not told:
            await asyncio.sleep(0)
    watch.close()
    return [event.device.devnode for event in told]


@in_namespace
def test_of_what_our_rule_tagged_and_nothing_else() -> None:
    prepare(3)
    assert asyncio.run(told_of()) == ["/dev/flood2"]


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


async def told_of_what_is_wanted() -> list[tuple[str, str]]:
    """What is told of, and as what, while ever other volumes are wanted."""
    from immud.watch.devices import DeviceEvent  # noqa: PLC0415
    from immud.watch.udev import UdevWatch  # noqa: PLC0415

    told: list[DeviceEvent] = []
    watch = UdevWatch(told.append)
    wanted, last = volume(1), volume(2)
    watch.start(frozenset({wanted["ID_FS_UUID"].upper(), last["ID_FS_UUID"]}))
    with sender() as send:
        for each in (
            *(volume(number) for number in range(2)),
            # It has lost its name, and is still that drive.
            {**wanted, "ACTION": "change", "ID_FS_UUID": "another"},
            {**wanted, "ACTION": "remove", "ID_FS_UUID": "another"},
            {**wanted, "ID_FS_UUID": "another"},
            last,
        ):
            send(message(each))
    async with asyncio.timeout(10):
        while not told or told[-1].device.devnode != last["DEVNAME"]:
            await asyncio.sleep(0)
    watch.close()
    return [(str(event.what), event.device.devnode) for event in told]


@in_namespace
def test_of_what_is_wanted_or_known_and_nothing_else() -> None:
    prepare(3)
    assert asyncio.run(told_of_what_is_wanted()) == [
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


async def told_after_a_loss() -> list[str]:
    """What is told of when a flood has more than the socket has room for."""
    from immud.watch.devices import DeviceEvent  # noqa: PLC0415
    from immud.watch.udev import UdevWatch  # noqa: PLC0415

    told: list[DeviceEvent] = []
    watch = UdevWatch(told.append)
    watch.start(frozenset({volume(1)["ID_FS_UUID"]}))
    told.clear()
    assert watch._peek
    watch._peek.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with sender() as send:
        for number in (*(2 for _ in range(100)), 1):
            send(message(volume(number)))
    async with asyncio.timeout(10):
        while not told:
            await asyncio.sleep(0)
    watch.close()
    return [event.device.devnode for event in told]


@in_namespace
def test_what_events_were_lost_is_looked_up() -> None:
    prepare(3)
    enter(1)
    assert asyncio.run(told_after_a_loss()) == ["/dev/flood1"]
