"""The steps where the two places are on two file systems, and data have to be copied. Pure.

The copy grows in a hidden directory next to where it is going to be. The original is what people
use until the one exchange, which leaves it at a name next to its own; `--finish` removes it. So
whatever is cut off, one of the two is whole and in use.
"""

from immud.adopt import refuse
from immud.adopt.facts import RowFacts, beside, copy_of, kept, parent, set_aside
from immud.adopt.steps import (
    Copy,
    Detach,
    Exchange,
    Idle,
    MakeHidden,
    MakeLink,
    Place,
    RemoveEmpty,
    RemoveHidden,
    RemoveKept,
    RemoveLink,
    SetAside,
    Step,
    Sync,
    TakeBack,
    Unchanged,
)

Steps = list[Step]


def adopt(fact: RowFacts) -> Steps:
    """A directory gives way to a link; a copy of it is where that leads."""
    row = fact.row
    hidden, copy, aside = beside(row.directory), copy_of(row.directory), kept(row.path)
    refuse.over(fact)
    refuse.used(row.path, fact.users)
    steps: Steps = []
    if fact.hidden.is_absent:
        steps.append(MakeHidden(hidden))
    elif not fact.hidden.is_directory:
        refuse.occupied(fact, fact.hidden, hidden)
    if fact.placed:
        # People have worked in the original since.
        steps.append(TakeBack(row.directory, copy))
    elif not (fact.directory.is_absent or fact.directory.empty):
        refuse.occupied(fact, fact.directory, row.directory)
    steps += [Copy(row.path, copy), Unchanged(row.path, copy), Place(copy, row.directory)]
    if fact.kept.is_absent:
        steps.append(MakeLink(aside, row.target))
    elif not fact.leads(fact.kept):
        refuse.still_kept(fact, aside)
    steps.append(Sync((parent(row.path),)))
    steps += [Detach(row.path, mount.of) for mount in fact.mounts]
    steps += [Exchange(row.path, aside), Sync((parent(row.path),))]
    if fact.path.empty:
        steps += [RemoveEmpty(aside), Sync((parent(row.path),))]
    return [*steps, RemoveHidden(hidden)]


def adopted(fact: RowFacts) -> Steps:
    """What a run that was cut off after the exchange left to do."""
    steps: Steps = []
    if fact.kept.is_directory and fact.kept.empty:
        steps += [RemoveEmpty(kept(fact.row.path)), Sync((parent(fact.row.path),))]
    if fact.hidden.is_directory and fact.placed:
        steps.append(RemoveHidden(beside(fact.row.directory)))
    return steps


def release(fact: RowFacts) -> Steps:
    """A copy of what the link leads to takes the link's place."""
    row = fact.row
    hidden, copy = beside(row.path), copy_of(row.path)
    refuse.over(fact)
    refuse.used(row.directory, fact.users)
    if fact.inside:
        refuse.mounted_inside(fact.inside[0], row.directory)
    steps: Steps = []
    if fact.set_aside.empty:
        steps.append(RemoveEmpty(set_aside(row.directory)))
    elif not fact.set_aside.is_absent:
        refuse.still_kept(fact, set_aside(row.directory))
    if fact.beside.is_absent or fact.beside.empty or fact.leads(fact.beside):
        steps.append(MakeHidden(hidden))  # what an interrupted run left there is gone by then
    elif not fact.beside.is_directory:
        refuse.occupied(fact, fact.beside, hidden)
    steps += [Copy(row.directory, copy), Unchanged(row.directory, copy)]
    steps += [Exchange(row.path, copy), Sync((parent(row.path), hidden))]
    return steps + released(fact)


def released(fact: RowFacts) -> Steps:
    """What is left to do after that exchange: keep what was copied, and take the link away."""
    row = fact.row
    content = fact.path.content if fact.linked else fact.copied.content
    steps: Steps = []
    if fact.directory.empty:
        steps += [RemoveEmpty(row.directory), Sync((parent(row.directory),))]
    elif fact.directory.is_directory:
        steps.append(SetAside(row.directory, set_aside(row.directory)))
    return [*steps, RemoveLink(copy_of(row.path), content), RemoveHidden(beside(row.path))]


def half_released(fact: RowFacts) -> bool:
    """Whether a release was cut off after its exchange."""
    return fact.path.is_directory and fact.leads(fact.copied)


def finish(fact: RowFacts) -> Steps:
    """Remove the original, where what took its place is in use; raises Busy while it is."""
    row = fact.row
    in_use = fact.linked and fact.directory.is_directory
    paths = [kept(row.path)] if in_use and fact.kept.is_directory else []
    # What was copied back, and may have been copied here again since.
    if (in_use or fact.path.is_directory) and fact.set_aside.is_directory:
        paths.append(set_aside(row.directory))
    steps: Steps = []
    for path in paths:
        refuse.used(path, fact.keepers)
        holds = tuple(name for name in fact.holds if parent(name) == path)
        steps += [Idle(path), RemoveKept(path, holds), Sync((parent(path),))]
    return steps
