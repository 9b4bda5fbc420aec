"""What the daemon offers, seen from the bus: the seam between the two.

The bus objects are written against these protocols and tested with a small
service of their own; the daemon implements them. Everything here is called on
the daemon's one event loop, and nothing here blocks.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from immud.lease.record import Record
from immud.model import (
    Finding,
    JobView,
    LinkFact,
    ManagerState,
    MountFact,
    Problem,
    TombView,
)

Changed = Callable[[], None]


class Job(Protocol):
    """A long operation under way."""

    @property
    def view(self) -> JobView: ...

    def cancel(self) -> None: ...

    def wait(self) -> Awaitable[JobView]: ...


class Tomb(Protocol):
    """One configured tomb; a single task owns its volume, these only ask that task.

    `passphrase` is the bytes read from a descriptor the caller handed over, or None.
    Each raises WrongState where the machine has no such transition.
    """

    @property
    def view(self) -> TombView: ...

    def open(self, uid: int, options: Mapping[str, Any], passphrase: bytes | None) -> Job: ...

    def close(self, uid: int, options: Mapping[str, Any]) -> Job: ...

    def eject(self, uid: int, options: Mapping[str, Any]) -> Job: ...


class Service(Protocol):
    """The daemon. `subscribe` callbacks run after anything readable here may have changed."""

    def state(self) -> ManagerState: ...

    def problems(self) -> tuple[Problem, ...]: ...

    def boot(self) -> Mapping[str, Any]:
        """Facts of this boot: str, bool, int (seconds or microseconds, named so)."""
        ...

    def timestamps(self) -> Mapping[str, int]:
        """CLOCK_MONOTONIC microseconds by name, for `Timestamps`."""
        ...

    def mounts(self) -> tuple[MountFact, ...]: ...

    def links(self) -> tuple[LinkFact, ...]: ...

    def usr_read_only(self) -> bool: ...

    def root_read_only(self) -> bool: ...

    def tombs(self) -> Mapping[str, Tomb]: ...

    def home_tomb(self) -> str:
        """The name of the tomb that is open at /var/home, or the empty string."""
        ...

    def jobs(self) -> Mapping[int, Job]: ...

    def leases(self) -> Mapping[str, Record]: ...

    async def end_lease(self, id: str) -> None:
        """Stop its service, and with it all that runs in it."""
        ...

    def findings(self) -> Mapping[int, Finding]:
        """What the tripwire has found and is still so, by number."""
        ...

    def integrity(self) -> str:
        """`intact`, `violated`, or `unknown` in a boot without a layout."""
        ...

    def verify(self) -> Awaitable[None]:
        """Look at everything, also at what notifies nobody; `findings` knows it then."""
        ...

    def reconcile(self, uid: int, options: Mapping[str, Any]) -> Job: ...

    def reload(self, uid: int, options: Mapping[str, Any]) -> Job: ...

    def subscribe(self, changed: Changed) -> None: ...
