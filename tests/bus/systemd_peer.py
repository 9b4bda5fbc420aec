"""A process that is org.freedesktop.systemd1 on a private bus: systemd_peer.py ADDRESS

Written with dbus-next's own object server. good.service starts, bad.service fails,
slow.service never ends, quick.service has ended before the call that started it is
answered, anything else is unknown. It prints `ready` and then what it is asked.
"""

import asyncio
import sys

from dbus_next import DBusError
from dbus_next.aio import MessageBus
from dbus_next.service import PropertyAccess, ServiceInterface, dbus_property, method, signal

RESULTS = {"good.service": "done", "bad.service": "failed", "quick.service": "done"}


class Manager(ServiceInterface):
    def __init__(self) -> None:
        super().__init__("org.freedesktop.systemd1.Manager")
        self._jobs = 0

    def _job(self, unit: str, mode: str) -> str:
        print(unit, mode, flush=True)
        if unit not in (*RESULTS, "slow.service"):
            raise DBusError("org.freedesktop.systemd1.NoSuchUnit", f"Unit {unit} not loaded.")
        self._jobs += 1
        path = f"/org/freedesktop/systemd1/job/{self._jobs}"
        removed = (self._jobs, path, unit, RESULTS.get(unit, ""))
        if unit == "quick.service":
            self.JobRemoved(*removed)
        elif unit != "slow.service":
            asyncio.get_running_loop().call_later(0.05, lambda: self.JobRemoved(*removed))
        return path

    @method()
    def StartUnit(self, name: "s", mode: "s") -> "o":  # noqa: N802, F821
        return self._job(name, mode)

    @method()
    def StopUnit(self, name: "s", mode: "s") -> "o":  # noqa: N802, F821
        return self._job(name, mode)

    @method()
    def KillUnit(self, name: "s", whom: "s", number: "i"):  # noqa: N802, F821
        print("kill", name, whom, number, flush=True)

    @method()
    def Reload(self):  # noqa: N802
        print("reload", flush=True)

    @signal()
    def JobRemoved(self, number, job, unit, result) -> "uoss":  # noqa: N802, F821
        return [number, job, unit, result]

    @dbus_property(access=PropertyAccess.READ)
    def SystemState(self) -> "s":  # noqa: N802, F821
        return "degraded"


async def main(address: str) -> None:
    bus = await MessageBus(bus_address=address).connect()
    bus.export("/org/freedesktop/systemd1", Manager())
    await bus.request_name("org.freedesktop.systemd1")
    print("ready", flush=True)
    await bus.wait_for_disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
