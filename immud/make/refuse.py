"""Why a drive cannot become a tomb: an error that says what to do instead. Pure."""

from immud.errors import Busy, ImmudError, TargetExists, WrongState
from immud.make.target import Stage, Target, Wish, human

HEADER = 16 << 20
"""What cryptsetup(8) sets aside for a LUKS2 header, bytes."""
SMALLEST = {"ext4": 16 << 20, "btrfs": 114 << 20, "xfs": 300 << 20}
"""The smallest file system each mkfs makes that is of any use, bytes."""
TABLE = 2 << 20
"""What a partition table and its copy at the end take, rounded up to where partitions begin."""
UNTOUCHED = "Nothing was changed."


def check(target: Target, wish: Wish) -> None:
    """Raise where `target` cannot become what `wish` says, or must not."""
    usable(target, wish)
    if unused(target) is None:
        occupied(target, wish)


def usable(target: Target, wish: Wish) -> None:
    """Raise for what no option gets past: it is in use, or no such thing can be done with it."""
    node = target.devnode
    if target.foreign:
        raise ImmudError(
            f"{node} is {target.foreign}; a tomb goes on a drive or a partition. {UNTOUCHED}"
        )
    if wish.partition and target.partition:
        raise ImmudError(
            f"{node} is a partition already; leave out --partition, or name {target.disk}. "
            f"{UNTOUCHED}"
        )
    if target.system:
        raise Busy(
            f"{node} holds the running system ({', '.join(target.system)}); choose another drive. "
            f"{UNTOUCHED}"
        )
    if target.uses:
        raise Busy(
            f"{node} is in use: {'; '.join(target.uses)}. Unmount or close that, and run this "
            f"again. {UNTOUCHED}"
        )
    if target.read_only:
        raise ImmudError(
            f"{node} is read-only; look for a switch on the drive (`blockdev --setrw {node}` where "
            f"it was set by software). {UNTOUCHED}"
        )
    need = HEADER + SMALLEST[wish.filesystem] + (TABLE if wish.partition else 0)
    if target.size < need:
        raise ImmudError(
            f"{node} has {human(target.size)}; a tomb with {wish.filesystem} needs at least "
            f"{human(need)}. {UNTOUCHED}"
        )
    if target.tombs:
        names = " and ".join(target.tombs)
        raise TargetExists(
            f"{node} is the drive of tomb {names}; if it is to be given up, first run: "
            f"immud tomb forget {target.tombs[0]}. {UNTOUCHED}"
        )


def unused(target: Target) -> str | None:
    """Why the drive may be written to without a further word, or None where it may not."""
    if not target.content:
        return "it is empty"
    if target.stage is Stage.FORMATTING:
        return "it holds what an interrupted run left, and nothing else"
    return None


def resumes(target: Target, wish: Wish) -> bool:
    """Whether an interrupted copy of homes is gone on with."""
    return target.stage is Stage.COPYING and bool(wish.source) and not wish.overwrite


def unfinished(target: Target) -> None:
    """Raise WrongState where an interrupted run left the volume: marked so it is enrolled by none.

    The next `create --from` would go on with it, and delete what its source has not.
    """
    node = target.volume or target.devnode
    if target.stage is Stage.FORMATTING:
        raise WrongState(
            f"{node} was being made into a tomb when that was interrupted. "
            f"Run immud tomb create again. {UNTOUCHED}"
        )
    if target.stage is Stage.COPYING:
        raise WrongState(
            f"Homes were being copied to {node} when that was interrupted. Run immud tomb create "
            f"again, with --from, to resume; or, to use it as it is, first run: "
            f"cryptsetup config {node} --subsystem ''. {UNTOUCHED}"
        )


def occupied(target: Target, wish: Wish) -> None:
    """Raise where something is on the drive, unless it may be given up or gone on with."""
    if wish.overwrite or resumes(target, wish):
        return
    if target.stage is Stage.COPYING:
        raise TargetExists(
            f"Homes were being copied to {target.devnode} when that was interrupted. Run the same "
            "command again, with --from, to resume, or add --overwrite to start over. " + UNTOUCHED
        )
    raise TargetExists(
        f"{target.devnode} is not empty; it holds {', '.join(target.content)}. "
        f"To give all of that up, add --overwrite. {UNTOUCHED}"
    )
