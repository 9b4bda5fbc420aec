"""Volatile homes at places where no tomb is configured any more.

Who removes or moves a tomb in the configuration leaves them behind, and who lives in them would
take them for the disk. They are told until the homes are unmounted, which is for a person to do:
nobody else knows whether what is in them is still wanted.
"""

from collections.abc import Set

from immud.early import mountinfo
from immud.model import Problem, Severity
from immud.tomb.absence import absent
from immud.watch.table import Reading


class Abandoned:
    """Finds them without reading the whole table each time: where there were any is known."""

    def __init__(self) -> None:
        self.places: tuple[str, ...] = ()
        self._known: set[str] = set()

    def start(self, targets: Set[str]) -> None:
        """Find what an earlier daemon left, with tombs at `targets` now."""
        ours = [entry for entry in mountinfo.read() if absent.ours(entry)]
        # Somebody may have bound what is at home in its place to another.
        kept = {entry.dev for entry in ours if entry.target in targets}
        self._known |= {entry.target for entry in ours if entry.dev not in kept}
        self.look(targets, Reading())

    def look(self, targets: Set[str], reading: Reading) -> bool:
        """See what there is, with tombs at `targets`; whether that is something else than before.

        What another mount hides nobody takes for anything.
        """
        before = self.places
        self._known |= targets
        left = {path: reading.top(path) for path in self._known - targets}
        self.places = tuple(sorted(p for p, entry in left.items() if entry and absent.ours(entry)))
        return self.places != before

    def problems(self) -> tuple[Problem, ...]:
        """What a person should know of them."""
        return tuple(
            Problem(
                Severity.WARNING,
                "home-volatile",
                f"{path} is in memory, and no tomb is configured there any more: what is saved in "
                f"it is lost at power-off. Copy what is wanted to a disk, then: umount {path}",
                {"path": path},
            )
            for path in self.places
        )
