"""The steps for a path that is a file system of its own: it is mounted at the target instead. Pure.

The order keeps a power cut from leaving a fstab that mounts something at a link: on the way there
it changes before the exchange, and on the way back after it. Both are flushed together, so that in
between there is next to nothing. It is mounted at both places until fstab has changed, by which the
next run knows it from a tomb.
"""

from immud.adopt import refuse
from immud.adopt.facts import Declared, RowFacts, beside, parent
from immud.adopt.steps import (
    Exchange,
    MakeDirectory,
    MakeLink,
    MountAgain,
    ReloadUnits,
    RemoveEmpty,
    RemoveLink,
    SetFstab,
    Step,
    Sync,
    Unmount,
)
from immud.early.observe import FSTAB

Steps = list[Step]


def adopts(fact: RowFacts) -> bool:
    """Whether the path is a mount that a line of fstab asks for, or was until a run was cut off."""
    row = fact.row
    if row.kind != "link" or fact.volatile or not (fact.path_parent.same and fact.path.empty):
        return False
    refuse_units(fact, row.path, row.directory)
    return bool(_lines(fact, row.path) or _declared(fact, row.directory))


def refuse_units(fact: RowFacts, old: str, new: str) -> None:
    """Raise where it is a unit of the administrator's that mounts something at `old`."""
    for one in fact.declared:
        if one.where == old and one.origin.startswith("/etc/systemd/"):
            (refuse.by_own_unit if one.own else refuse.by_unit)(one, old, new)


def adopt(fact: RowFacts) -> Steps:
    """Mount it there as well, take it away here, and put the link in the place of what is left."""
    row, aside = fact.row, beside(fact.row.path)
    _check(fact, row.path)
    steps: Steps = []
    if fact.directory.is_absent:
        steps += [MakeDirectory(row.directory, row.mode), Sync((parent(row.directory),))]
    elif not (fact.directory.empty or (fact.over and fact.directory.is_directory)):
        refuse.occupied(fact, fact.directory, row.directory)
    if fact.mounts and not fact.over:
        steps.append(MountAgain(row.path, row.directory))
    steps += [MakeLink(aside, row.target), Sync((parent(row.path),))]
    if _lines(fact, row.path):
        steps.append(SetFstab(row.path, row.directory))
    if fact.mounts:
        steps.append(Unmount(row.path))
    steps += [Exchange(row.path, aside), Sync((parent(FSTAB), parent(row.path)))]
    return [*steps, RemoveEmpty(aside), Sync((parent(row.path),)), ReloadUnits()]


def releases(fact: RowFacts) -> bool:
    """Whether what the row leads to is a mount that a line of fstab asks for."""
    if fact.linked:
        refuse_units(fact, fact.row.directory, fact.row.path)
    return bool(fact.linked and fact.path_parent.same and _lines(fact, fact.row.directory))


def release(fact: RowFacts) -> Steps:
    """The reverse, with the directory there before fstab says so."""
    row, aside = fact.row, beside(fact.row.path)
    _check(fact, row.directory)
    if fact.inside:
        refuse.mounted_inside(fact.inside[0], row.directory)
    steps: Steps = [MakeDirectory(aside, row.mode), Sync((parent(row.path),))]
    steps += [Exchange(row.path, aside), *_moved_back(fact)]
    return [*steps, RemoveLink(aside, fact.path.content), Sync((parent(row.path),))]


def half_released(fact: RowFacts) -> bool:
    """Whether a release was cut off after its exchange: fstab may say the one or the other."""
    row = fact.row
    if row.kind != "link" or not (fact.path_parent.same and fact.path.empty):
        return False
    return bool(_lines(fact, row.directory) or (_lines(fact, row.path) and _twice(fact)))


def released(fact: RowFacts) -> Steps:
    """What is left to do then."""
    _check(fact, fact.row.directory)
    return _moved_back(fact)


def _moved_back(fact: RowFacts) -> Steps:
    row = fact.row
    steps: Steps = []
    if fact.over and not fact.mounts:
        steps.append(MountAgain(row.directory, row.path))
    if _lines(fact, row.directory):
        steps += [SetFstab(row.directory, row.path), Sync((parent(row.path), parent(FSTAB)))]
    if fact.over:
        steps.append(Unmount(row.directory))
    return [*steps, ReloadUnits()]


def _twice(fact: RowFacts) -> bool:
    """Whether it is mounted at both places, as in the middle of a run."""
    return bool(fact.over and fact.mounts and fact.over.source == fact.mounts[0].source)


def _lines(fact: RowFacts, where: str) -> tuple[Declared, ...]:
    """The line of fstab for a place; none where there are more, or units as well."""
    found = _declared(fact, where)
    return found if all(one.origin.startswith(f"{FSTAB}:") for one in found) else ()


def _declared(fact: RowFacts, where: str) -> tuple[Declared, ...]:
    """That line, or the unit that a person has renamed, as the only one for a place.

    With the line of the root file system's own fstab, where another is shown.
    """
    found = tuple(one for one in fact.declared if one.where == where)
    return found if len(found) == len({one.own for one in found}) else ()


def _check(fact: RowFacts, used: str) -> None:
    for mount in fact.mounts:
        if mount.fstype == "autofs":
            refuse.automounted(fact)
    if fact.below:
        refuse.mounts_below(fact)
    for one in fact.declared:
        if one.where not in (fact.row.path, fact.row.directory):
            refuse.declared_below(fact, one)
    # A run that was cut off may have changed one of two files.
    places = {(one.own, one.where) for one in fact.declared}
    if len(places) > len({one.own for one in fact.declared}) or len(fact.mounts) > 1:
        refuse.twice(fact)
    # A tomb, most likely: what fstab asks for is at both places, or where fstab says.
    there = _twice(fact) if fact.mounts else _declared(fact, fact.row.directory)
    if fact.over and not there:
        refuse.over(fact)
    refuse.used_mount(used, fact.users)
