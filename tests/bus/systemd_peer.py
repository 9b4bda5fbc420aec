"""A process that is org.freedesktop.systemd1 on a private bus: systemd_peer.py ADDRESS

Written with dbus-next's own object server. good.service starts, bad.service fails,
slow.service never ends, quick.service has ended before the call that started it is
answered, any target starts and stops, anything else is unknown. A transient unit ends at once,
and fails where its name has `bad` in it, or never ends where that is `slow`. It prints `ready`
and then what it is asked. immud.service has failed.
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
        if unit not in (*RESULTS, "slow.service") and not unit.endswith(".target"):
            raise DBusError("org.freedesktop.systemd1.NoSuchUnit", f"Unit {unit} not loaded.")
        self._jobs += 1
        path = f"/org/freedesktop/systemd1/job/{self._jobs}"
        removed = (self._jobs, path, unit, RESULTS.get(unit, "done"))
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
    def StartTransientUnit(  # noqa: N802
        self,
        name: "s",  # noqa: F821
        mode: "s",  # noqa: F821
        properties: "a(sv)",  # noqa: F821
        aux: "a(sa(sv))",  # noqa: F821
    ) -> "o":  # noqa: F821
        wanted = {key: value.value for key, value in properties}
        print(name, mode, wanted["ExecStart"], *wanted["Environment"], flush=True)
        self._jobs += 1
        path = f"/org/freedesktop/systemd1/job/{self._jobs}"
        result = "failed" if "bad" in name else "done"
        if "slow" not in name:
            asyncio.get_running_loop().call_later(
                0.02, lambda: self.JobRemoved(self._jobs, path, name, result)
            )
        return path

    @method()
    def Reload(self):  # noqa: N802
        print("reload", flush=True)

    @signal()
    def JobRemoved(self, number, job, unit, result) -> "uoss":  # noqa: N802, F821
        return [number, job, unit, result]

    @dbus_property(access=PropertyAccess.READ)
    def SystemState(self) -> "s":  # noqa: N802, F821
        return "degraded"


class Unit(ServiceInterface):
    def __init__(self) -> None:
        super().__init__("org.freedesktop.systemd1.Unit")

    @dbus_property(access=PropertyAccess.READ)
    def ActiveState(self) -> "s":  # noqa: N802, F821
        return "failed"


async def main(address: str) -> None:
    bus = await MessageBus(bus_address=address).connect()
    bus.export("/org/freedesktop/systemd1", Manager())
    bus.export("/org/freedesktop/systemd1/unit/immud_2eservice", Unit())
    await bus.request_name("org.freedesktop.systemd1")
    print("ready", flush=True)
    await bus.wait_for_disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
