"""udev's view of the block devices: the only file that knows pyudev.

Two monitors: udev's own, whose events come when the rules are done and the
database is written, and the kernel's, because a pulled drive should not wait for
udev's workers, and while they look at a new one things can be got ready.
"""

import asyncio
import errno
import os
import re
import socket
from collections.abc import Callable, Iterable

import pyudev  # type: ignore[import-untyped] # it has no annotations

from immud.watch.devices import (
    Device,
    DeviceEvent,
    Inventory,
    What,
    describe,
    mention,
    usable,
)

CONTROL = "/run/udev/control"
# What 65-immud.rules puts on each device with something on it that blkid(8) knows.
TAG = "immud"
# So many events are read in one turn of the loop: a flood of them keeps nobody else waiting, such
# as who has to hear that a drive was pulled. What they mean is looked at once a turn.
PORTION = 100
# libudev takes no longer message, bytes.
_LONGEST = 8192
_PATH = re.compile(rb"DEVPATH=([^\0]*)")


class UdevWatch:
    """Tells `changed` of the block devices that come, change or go, on the running loop: of all, or
    of those that have one of the names that are wanted.

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
        self._peek: socket.socket | None = None
        self._names: frozenset[str] | None = None
        self._mention = mention(())
        self._lossy: set[pyudev.Monitor] = set()

    @property
    def devices(self) -> tuple[Device, ...]:
        return self._inventory.devices

    @property
    def available(self) -> bool:
        """Whether there is a udev at all: in a container there is none, and no hot-plug."""
        return os.path.exists(CONTROL)

    def start(self, names: frozenset[str] | None = None) -> None:
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
            if source == "udev":
                self._peek = socket.fromfd(monitor.fileno(), socket.AF_NETLINK, socket.SOCK_RAW)
        self.want(names)

    def want(self, names: frozenset[str] | None) -> None:
        """Tell of devices that have one of these names (`Device.names`), None for all; and look."""
        self._names = None if names is None else frozenset(name.lower() for name in names)
        self._mention = mention(names or ())
        self._enumerate()

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for monitor in self._monitors:
            loop.remove_reader(monitor.fileno())
        self._monitors.clear()
        if self._peek:
            self._peek.close()

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
        self._drain(monitor, self._take, self._skipped)

    def _read_kernel(self, monitor: pyudev.Monitor) -> None:
        self._drain(monitor, self._take_kernel, lambda: False)

    def _drain(
        self,
        monitor: pyudev.Monitor,
        take: Callable[[pyudev.Device], None],
        skipped: Callable[[], bool],
    ) -> None:
        if monitor not in self._monitors:
            return  # closed meanwhile
        # Monitor.poll() raises for ever after ENOBUFS (pyudev#194): hence the private call.
        for _ in range(PORTION):
            try:
                if skipped():
                    continue
                if (device := monitor._receive_device()) is None:
                    self._make_good(monitor)
                    return
                take(device)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._lossy.add(monitor)
        if monitor in self._lossy:
            # There may be nothing more, and then nobody would call.
            asyncio.get_running_loop().call_soon(self._drain, monitor, take, skipped)

    def _make_good(self, monitor: pyudev.Monitor) -> None:
        """Look up what the events would have said that this one lost.

        Not before all others are read: until then the kernel does not say that it loses more
        (NETLINK_S_CONGESTED). Like the events, it is of what has our tag, or is known.
        """
        if monitor in self._lossy:
            self._lossy.remove(monitor)
            self._look_at(self._context.list_devices(subsystem="block").match_tag(TAG))

    def _skipped(self) -> bool:
        """Whether udev's next event was of a device that is neither wanted nor known, and is gone.

        libudev takes ten times as long to take one apart, and of a thousand drives that appear at
        once one is wanted. Whose event it is does not matter yet: who sent it, libudev asks.
        """
        if self._names is None or self._peek is None:
            return False
        try:
            event = self._peek.recv(_LONGEST, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        known = any(os.fsdecode(path) in self._inventory for path in _PATH.findall(event))
        if known or self._mention.search(event.lower()):
            return False
        self._peek.recv(1, socket.MSG_DONTWAIT)
        return True

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
        self._look_at(self._context.list_devices(subsystem="block"))

    def _look_at(self, devices: Iterable[pyudev.Device]) -> None:
        """These, and all that were known before."""
        there = set()
        for device in devices:
            there.add(device.device_path)
            self._look(device)
        for known in {device.devpath for device in self._inventory.devices} - there:
            try:
                device = pyudev.Devices.from_sys_path(self._context, f"/sys{known}")
            except pyudev.DeviceNotFoundError:
                continue
            there.add(known)
            self._look(device)
        self._tell(self._inventory.only(there))

    def _look(self, device: pyudev.Device) -> None:
        sectors = _attribute(device, "size")
        if usable(device.properties, initialized=device.is_initialized, sectors=sectors):
            found = _describe(device)
            if found.devpath in self._inventory or self._wanted(found):
                self._tell(self._inventory.seen(found))
        elif device.is_initialized:
            # An entry that is gone from the database, as with --cleanup-db, ends nothing.
            self._tell(self._inventory.removed(device.device_path))

    def _wanted(self, device: Device) -> bool:
        return self._names is None or not self._names.isdisjoint(device.names)

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
    return describe(device.device_path, device.properties)


def _attribute(device: pyudev.Device, name: str) -> str:
    """An attribute's text, straight from sysfs: libudev would cache it."""
    try:
        fd = os.open(f"{device.sys_path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 4096).decode()
        finally:
            os.close(fd)
    except OSError:
        return ""
