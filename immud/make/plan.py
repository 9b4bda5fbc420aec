"""From a drive and a wish to the steps in between. Pure."""

from immud.make.refuse import resumes
from immud.make.steps import (
    Copy,
    Enrol,
    Format,
    MakeFileSystem,
    Map,
    Mark,
    Partition,
    Step,
    Unmap,
    Wipe,
)
from immud.make.target import MAPPING_SUFFIX, Stage, Target, Wish
from immud.tomb.luks.dm import PREFIX


def plan(target: Target, wish: Wish) -> tuple[Step, ...]:
    """The steps that make `target`, which nothing speaks against, what `wish` says.

    Interrupted anywhere before the last mark, the drive counts as empty, or as one whose copy is
    to be gone on with; nothing but that drive is written to before the enrolment.
    """
    clear = tuple(Unmap(name) for name in target.leftovers)
    if resumes(target, wish):
        volume = target.volume
        return (*clear, Map(volume, _mapping(wish)), *_fill(volume, wish))
    volume = first_partition(target.devnode) if wish.partition else target.devnode
    label = wish.label or wish.name
    empty: tuple[Step, ...] = ()
    if target.content:
        # What is inside goes first: a partition whose table is gone is not found any more.
        empty = (Wipe((*target.parts, target.devnode)),)
    parted = (Partition(target.devnode),) if wish.partition else ()
    return (
        *clear,
        *empty,
        *parted,
        Format(volume, label, Stage.FORMATTING, wish.derivation),
        Map(volume, _mapping(wish)),
        MakeFileSystem(_mapping(wish), wish.filesystem, wish.name),
        *_fill(volume, wish),
    )


def _fill(volume: str, wish: Wish) -> tuple[Step, ...]:
    label = wish.label or wish.name
    copied: tuple[Step, ...] = ()
    if wish.source:
        copied = (
            Mark(volume, label, Stage.COPYING),
            Copy(_mapping(wish), wish.filesystem, wish.source),
        )
    enrolled = (Enrol(volume, wish),) if wish.enrol else ()
    return (*copied, Unmap(_mapping(wish)), Mark(volume, label, Stage.NONE), *enrolled)


def _mapping(wish: Wish) -> str:
    return f"{PREFIX}{wish.name}{MAPPING_SUFFIX}"


def first_partition(disk: str) -> str:
    """What the kernel calls the first partition of `disk`: a name that ends in a digit gets a p."""
    return f"{disk}p1" if disk[-1].isdigit() else f"{disk}1"
