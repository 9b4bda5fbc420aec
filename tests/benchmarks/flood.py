"""A flood of udev's events, and what each of them costs the daemon: CPU, natively.

In a network namespace of its own, where nobody else listens, a process has what the daemon has:
udev's events by pyudev, the inventory of devices, and a configured tomb that asks of each change
what it means. A thousand volumes appear at once: they are sent in udev's own format, in portions
that the socket has room for, for what it drops is looked up all together, and cheaper. Their
entries in sysfs are files in a tmpfs. What is measured is user and system time, of the kernel's
side of the sending nothing. Once none of them is the tomb, and once all of them could be.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from immud.early import kernel
from tests.benchmarks import crowd, injected
from tests.benchmarks.figures import Figure
from tests.support.namespaces import namespaced
from tests.support.uevents import DISKS, message, sender, volume

RUNS = injected.RUNS
EVENTS = 1000
PORTION = 20

UDEV = "/run/udev/control"
CLONE_NEWNET = 0x40000000
_BAR = ("immud", "", "ms", 1.0)


def measure(runs: int = RUNS) -> list[Figure]:
    """`tomb.flood_ms_per_event`, `tomb.flood_delay` and `tomb.crowd_delay`."""
    facts = {"runs": runs, "events": EVENTS}
    strangers = [namespaced(lambda: _flood(twins=False)) for _ in range(runs)]
    twins = [namespaced(lambda: _flood(twins=True)) for _ in range(runs)]
    what = "CPU of the daemon's for one of a thousand events of udev's, natively"
    return [
        Figure("tomb.flood_ms_per_event", what, {"immud": strangers}, *_BAR, facts),
        Figure(
            "tomb.twins_ms_per_event",
            "the same, where each of the volumes could be the tomb",
            {"immud": twins},
            *_BAR,
            facts,
        ),
        *injected.measure(runs),
        *crowd.measure(min(runs, crowd.RUNS)),
    ]


def _flood(*, twins: bool) -> float:
    """In namespaces: milliseconds of CPU for each event."""
    prepare(EVENTS + 1)
    return asyncio.run(_listen(twins=twins))


def prepare(count: int) -> None:
    """In a mount namespace: a network of its own, and that many volumes in sysfs."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    # libudev listens to udev only where there is one.
    kernel.mount("tmpfs", "/run", "tmpfs", 0)
    os.mkdir("/run/udev")
    Path(UDEV).touch()
    kernel.mount("tmpfs", str(DISKS), "tmpfs", 0)
    for number in range(count):
        (DISKS / f"flood{number}").mkdir()
        (DISKS / f"flood{number}" / "size").write_text("2048\n")


async def _listen(*, twins: bool) -> float:
    # Only here: the tests' own process is not to have what the daemon imports.
    from immud.jobs import Jobs  # noqa: PLC0415
    from immud.model import TombConfig  # noqa: PLC0415
    from immud.tomb.drives.match import names  # noqa: PLC0415
    from immud.tomb.tombs import Tombs  # noqa: PLC0415
    from immud.watch.devices import DeviceEvent  # noqa: PLC0415
    from immud.watch.kmsg import KernelLog  # noqa: PLC0415
    from immud.watch.udev import UdevWatch  # noqa: PLC0415

    told: list[DeviceEvent] = []

    def device(event: DeviceEvent) -> None:
        told.append(event)
        tombs.device(event)

    config = TombConfig("flood", mount="/run/flood", absent="directory", auto_open=False)
    config = replace(config, **({"label": "tomb"} if twins else {"serial": "Last"}))
    watch = UdevWatch(device)
    tombs = Tombs(
        [config],
        jobs=Jobs(lambda: None),
        changed=lambda: None,
        on_open=lambda _: None,
        on_closed=lambda _: None,
        lookup=watch.lookup,
        ended=watch.ended,
        managers=None,  # type: ignore[arg-type] # nothing is opened
        kernel_log=KernelLog(),
    )
    watch.start(names([config]))
    tombs.start()
    await asyncio.sleep(0.2)
    told.clear()
    spent = 0.0
    with sender() as send:
        for portion in _portions():
            for data in portion:
                send(data)
            # Of this one it is told in either case: then it has seen the others.
            last = {"ID_SERIAL": "Last", "DISKSEQ": f"{EVENTS + time.monotonic_ns()}"}
            send(message({**volume(EVENTS), **last}))
            before = time.process_time()
            async with asyncio.timeout(10):
                while not told or told[-1].device.diskseq != last["DISKSEQ"]:
                    await asyncio.sleep(0)
            # What the tomb's own task has left to do.
            await asyncio.sleep(0)
            spent += time.process_time() - before
    assert len({event.device.devpath for event in told}) == (EVENTS + 1 if twins else 1)
    await tombs.stop(close=False)
    watch.close()
    return spent / EVENTS * 1000


def _portions() -> Iterator[list[bytes]]:
    for first in range(0, EVENTS, PORTION):
        yield [message(volume(number)) for number in range(first, first + PORTION)]
