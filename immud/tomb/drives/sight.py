"""The drives that are there, as one tomb sees them: which are its own, and whether they still are.

udev says what there is, and that is a hint; whether a drive is gone is asked of the kernel.
"""

from collections.abc import Mapping

from immud.model import TombConfig, TombState
from immud.tomb.drives import drive
from immud.tomb.drives.match import candidates, key_drives, waits
from immud.tomb.drives.remote import is_remote
from immud.tomb.machine import IDLE, Found, Life, Seen
from immud.tomb.volume import Volume
from immud.watch.devices import Device


class Sight:
    """`devices` are all there are, `used` is the one that was opened last."""

    def __init__(self, config: TombConfig) -> None:
        self.config = config
        self.devices: Mapping[str, Device] = {}
        self.used: Device | None = None

    def use(self, life: Life) -> None:
        """The tomb is about to be opened, or closed, on the drive that its life is about."""
        self.used = self.devices.get(life.device) or self.used

    def shown(self, life: Life) -> Device | None:
        """The drive people are to be told of."""
        if life.state in (TombState.ABSENT, TombState.LOST, TombState.AMBIGUOUS):
            return None
        return self.devices.get(life.device) or self.used

    def seen(self, life: Life, volume: Volume) -> Seen:
        """The drives that answer now, and whether the one in use is gone."""
        if life.state in IDLE:
            lost = not all(volume.stands(m, self.used) for m in volume.unwiped())
        else:
            lost = self.used is not None and self._gone(self.used)
        return Seen(self._candidates(), lost, self._waits())

    def found(self, volume: Volume) -> Found:
        """What an earlier run of the daemon left: open tombs stay open."""
        state = volume.state()
        live = [m for m in state.mappings if volume.base(m)]
        mapping = state.mounted or next(iter(live), None)
        self.used = volume.device(mapping) if mapping else None
        key = self.used.key if self.used else ""
        there = bool(state.mappings), bool(state.mounted)
        return Found(self._candidates(), key, *there, self._waits())

    def key_drive(self) -> Device | None:
        """The drive with the key, where exactly one answers to its place."""
        found = key_drives(self.config, self.devices.values())
        return found[0] if len(found) == 1 else None

    def _candidates(self) -> tuple[str, ...]:
        return tuple(d.key for d in candidates(self.config, self.devices.values()))

    def _waits(self) -> str:
        return waits(self.config, self.devices.values())

    def _gone(self, device: Device) -> bool:
        # A drive on the network stays in sysfs when its server is gone: then it is not told of.
        told = device.key in self.devices or not is_remote(device)
        return not told or not drive.alive(device.number, device.diskseq)
