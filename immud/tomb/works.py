"""The works of a tomb's machine, each handed to whoever performs it."""

from dataclasses import dataclass, field

from immud.courtesy import haste
from immud.errors import ImmudError
from immud.model import Holder
from immud.tomb import closing, opening
from immud.tomb.absence.fallback import Fallback
from immud.tomb.fs import binds, mounting
from immud.tomb.fs.check import Progress
from immud.tomb.fs.nesting import Nest
from immud.tomb.machine import Action
from immud.tomb.volume import Volume
from immud.watch.devices import Device


@dataclass(frozen=True, slots=True)
class Order:
    """What a work needs to know besides its volume: the drive, what was asked along with it.

    `force` are the seconds from SIGTERM to SIGKILL for holders, 0 where they are left alone.
    """

    device: Device | None = None
    passphrase: bytes | None = field(default=None, repr=False)
    force: float = 0.0
    read_only: bool = False
    key_drive: Device | None = None


class Works:
    """Performs the works on one volume."""

    def __init__(self, volume: Volume, fallback: Fallback, nest: Nest) -> None:
        self.volume = volume
        self.fallback = fallback
        self.nest = nest

    async def perform(self, action: Action, order: Order, progress: Progress) -> tuple[Holder, ...]:
        """Perform `action`; returns who was ended for it. Raises ImmudError, OSError.

        `progress` is told how far it is, from 0.0 to 1.0, where that can be known.
        """
        volume = self.volume
        match action:
            case Action.UNMOUNT:
                return (await closing.unmount(volume, force=order.force)).values
            case Action.UNMAP:
                return (await closing.unmap(volume, force=order.force)).values
            case Action.RETREAT:
                await closing.retreat(volume)
            case Action.PURGE:
                return (await closing.purge(volume, order.device)).values
            case _:
                if order.device is None:
                    raise ImmudError("Its drive is gone; plug it in again.")
                with haste():
                    await self._with(action, order.device, order, progress)
        return ()

    async def attach(self) -> None:
        """See to the binds of an open volume, which a restart or a refused closing may have left
        undone."""
        if mapping := self.volume.state().mounted:
            await binds.attach(self.volume, mapping)

    async def _with(self, action: Action, device: Device, order: Order, progress: Progress) -> None:
        volume = self.volume
        match action:
            case Action.UNLOCK:
                await opening.unlock(
                    *(volume, device, order.passphrase, order.key_drive),
                    read_only=order.read_only,
                )
            case Action.CHECK:
                await opening.recognise(volume, device)
                await mounting.check(volume, device, progress)
            case Action.MOUNT:
                # For what a restarted daemon took over open, and has to mount again.
                await opening.recognise(volume, device)
                await mounting.mount(volume, device, self.fallback, self.nest, progress)
                if volume.config.binds or volume.config.bind_hooks:
                    await self.attach()
            case Action.EJECT:
                await closing.eject(device)
