"""udev's view of the block devices: the only file that knows pyudev.

Two monitors: udev's own, whose events come when the rules are done and the
database is written, and the kernel's, because a pulled drive should not wait for
udev's workers, and while they look at a new one things can be got ready.
"""

import asyncio
import errno
import os
from collections.abc import Callable

import pyudev  # type: ignore[import-untyped] # it has no annotations

from immud.watch.devices import Device, DeviceEvent, Inventory, What, describe, usable

CONTROL = "/run/udev/control"
# What 65-immud.rules puts on each device with something on it that blkid(8) knows.
TAG = "immud"


class UdevWatch:
    """Tells `changed` of every block device that comes, changes or goes, on the running loop.

    A removal may be told of a device that was not usable, and so never told before.
    `coming` is called when there is a drive that udev only begins to look at.
    """

    def __init__(
        self, changed: Callable[[DeviceEvent], None], coming: Callable[[], None] = lambda: None
    ) -> None:
        self._changed, self._coming = changed, coming
        self._inventory = Inventory()
        self._context = pyudev.Context()
        self._monitors: list[pyudev.Monitor] = []

    @property
    def devices(self) -> tuple[Device, ...]:
        return self._inventory.devices

    @property
    def available(self) -> bool:
        """Whether there is a udev at all: in a container there is none, and no hot-plug."""
        return os.path.exists(CONTROL)

    def start(self) -> None:
        """Listen, then look: what comes in between is seen twice and told once."""
        loop = asyncio.get_running_loop()
        for source, read in (("udev", self._read_udev), ("kernel", self._read_kernel)):
            try:
                monitor = pyudev.Monitor.from_netlink(self._context, source)
                monitor.filter_by("block")
                if source == "udev":
                    monitor.filter_by_tag(TAG)
                monitor.start()
            except OSError:
                # No netlink here: whoever made this container allows no hot-plug.
                continue
            self._monitors.append(monitor)
            loop.add_reader(monitor.fileno(), read, monitor)
        self._enumerate()

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for monitor in self._monitors:
            loop.remove_reader(monitor.fileno())
        self._monitors.clear()

    def lookup(self, number: str) -> Device | None:
        """The block device `major:minor` as the database has it now, finished or not."""
        major, minor = map(int, number.split(":"))
        try:
            device = pyudev.Devices.from_device_number(
                self._context, "block", os.makedev(major, minor)
            )
        except (pyudev.DeviceNotFoundError, OSError):
            return None
        return _describe(device)

    def ended(self, device: Device) -> None:
        """The drive of `device` works no more, whatever udev says: next time it is new."""
        self._tell(self._inventory.ended(device.disk))

    def _read_udev(self, monitor: pyudev.Monitor) -> None:
        self._drain(monitor, self._take)

    def _read_kernel(self, monitor: pyudev.Monitor) -> None:
        self._drain(monitor, self._take_kernel)

    def _drain(self, monitor: pyudev.Monitor, take: Callable[[pyudev.Device], None]) -> None:
        # Monitor.poll() raises for ever after ENOBUFS (pyudev#194): hence the private call.
        try:
            while (device := monitor._receive_device()) is not None:
                take(device)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            # Events were lost; what they would have said is in sysfs.
            self._enumerate()

    def _take_kernel(self, device: pyudev.Device) -> None:
        if device.action == "add" and "/virtual/" not in device.device_path:
            self._coming()
        if device.action != "remove":
            return
        known = self._inventory.removed(device.device_path, device.properties.get("DISKSEQ", ""))
        # Even what did not count as usable any more, such as a mapping without its table:
        # somebody may be waiting for its end.
        self._tell(known or (DeviceEvent(What.REMOVED, _describe(device)),))

    def _take(self, device: pyudev.Device) -> None:
        if device.subsystem != "block":
            return
        if device.action == "remove":
            diskseq = device.properties.get("DISKSEQ", "")
            self._tell(self._inventory.removed(device.device_path, diskseq))
        else:
            self._look(device)

    def _enumerate(self) -> None:
        there = []
        for device in self._context.list_devices(subsystem="block"):
            there.append(device.device_path)
            self._look(device)
        self._tell(self._inventory.only(there))

    def _look(self, device: pyudev.Device) -> None:
        sectors = _attribute(device, "size")
        if usable(device.properties, initialized=device.is_initialized, sectors=sectors):
            self._tell(self._inventory.seen(_describe(device)))
        elif device.is_initialized:
            # An entry that is gone from the database, as with --cleanup-db, ends nothing.
            self._tell(self._inventory.removed(device.device_path))

    def _tell(self, events: tuple[DeviceEvent, ...]) -> None:
        for event in events:
            self._changed(event)


def present() -> tuple[Device, ...]:
    """The block devices that are there and usable now: one look, for who does not stay."""
    return tuple(
        _describe(device)
        for device in pyudev.Context().list_devices(subsystem="block")
        if usable(
            device.properties,
            initialized=device.is_initialized,
            sectors=_attribute(device, "size"),
        )
    )


def _describe(device: pyudev.Device) -> Device:
    removable = _attribute(device, "removable") or _attribute(device, "../removable")
    return describe(device.device_path, device.properties, removable=removable.strip() == "1")


def _attribute(device: pyudev.Device, name: str) -> str:
    """An attribute's text, straight from sysfs: libudev would cache it."""
    try:
        with open(os.path.join(device.sys_path, name), encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""
