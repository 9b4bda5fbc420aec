"""Which of udev's events the daemon is woken for."""

import asyncio

from tests.benchmarks.flood import message, prepare, sender, volume
from tests.support.namespaces import in_namespace


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
