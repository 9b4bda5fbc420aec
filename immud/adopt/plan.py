"""What adopting or releasing rows takes: pure, from what was observed to steps.

The order of the steps is what makes a power cut harmless. The link is made at
the *new* place first, with the content it is going to have at the old one, and
is on the disk before one renameat2(2) makes directory and link change places.
So there is always either the old layout (with a link of ours left over, which
the next run goes on from) or the new one.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from immud.adopt import across, apparmor, refuse, repoint
from immud.adopt.facts import Entry, Observed, RowFacts, beside, parent
from immud.adopt.steps import (
    Attach,
    Detach,
    Exchange,
    MakeDirectory,
    MakeLink,
    ReloadProfiles,
    RemoveEmpty,
    RemoveFile,
    RemoveLink,
    Step,
    Sync,
    WriteFile,
)
from immud.early.plan import Row
from immud.errors import ImmudError

Steps = list[Step]


def adopt_steps(rows: tuple[Row, ...], observed: Observed) -> tuple[Step, ...]:
    """The steps that put `rows` behind their links; none where all of them are.

    Raises an ImmudError, before anything is done, where a row cannot be adopted.
    """
    chosen = _chosen(rows, observed)
    moves = _each("adopt", _adopt, chosen)
    # Programs under AppArmor have to be allowed the new paths before these exist,
    # and those of a row that changes at boot are of no use to anybody until then.
    adopted = [fact.row for fact in observed.rows if fact.adopted or fact in chosen]
    return tuple(_profiles(adopted, observed) + moves)


def release_steps(rows: tuple[Row, ...], observed: Observed) -> tuple[Step, ...]:
    """The steps that put the directories of `rows` back; none where all of them are there.

    Raises an ImmudError, before anything is done, where a row cannot be released.
    """
    chosen = _chosen(rows, observed)
    moves = _each("release", _release, chosen)
    still = [fact.row for fact in observed.rows if fact.adopted and fact not in chosen]
    return tuple(moves + _profiles(still, observed))


def finish_steps(rows: tuple[Row, ...], observed: Observed) -> tuple[Step, ...]:
    """The steps that remove what was kept of `rows` when they were copied.

    Raises an ImmudError, before anything is done, where one of them is in use.
    """
    return tuple(_each("adopt --finish", across.finish, _chosen(rows, observed)))


def left_alone(fact: RowFacts) -> str:
    """Why adopting leaves a row as it is without calling that a failure; "" where it does not."""
    path = fact.row.path
    if fact.at_boot:
        at_boot = f"{path} changes at the next boot with immud enabled, before programs use it."
        # A tmpfs of the system's own stays that: it is as volatile as the link's would be.
        stays = any(mount.fstype == "tmpfs" for mount in fact.mounts)
        return "" if fact.adopted or stays else at_boot
    if fact.adopted or fact.path.is_absent or not fact.volatile:
        return ""
    why = ""
    if fact.declared:
        why = f"{fact.declared[0].origin} mounts something at {fact.declared[0].where}"
    elif not fact.path.is_directory:
        why = f"it is {fact.path.describe()}"
    elif not fact.path.empty:
        why = "it is not empty"
    elif fact.below or any(not mount.own for mount in fact.mounts):
        why = f"something is mounted at {(fact.below or (path,))[0]}"
    elif not _free(fact):
        why = f"{beside(path)} is in the way"
    if not why:
        return ""
    return (
        f"{path} stays as it is: {why}, and what it would lead to, {fact.row.directory}, is made "
        f"anew at every boot, so nothing can be kept there. Once {path} is empty, adopt it again."
    )


def _chosen(rows: tuple[Row, ...], observed: Observed) -> list[RowFacts]:
    refuse.system(observed)
    return [fact for fact in observed.rows if fact.row in rows]


def _each(verb: str, plan: Callable[[RowFacts], Steps], facts: Iterable[RowFacts]) -> Steps:
    """The steps of all rows; one error for all those that have none."""
    steps: Steps = []
    errors: list[ImmudError] = []
    others: list[str] = []
    for fact in facts:
        try:
            todo = plan(fact)
        except ImmudError as error:
            errors.append(error)
        else:
            steps += todo
            others += [fact.row.path] if todo else []
    if errors:
        raise refuse.together(errors, verb, others)
    return steps


def _adopt(fact: RowFacts) -> Steps:  # noqa: PLR0911 - one for each way
    if fact.at_boot or left_alone(fact):
        return []
    if fact.partition and fact.row.kind == "link" and not fact.adopted:
        refuse.automatic(fact, fact.partition)
    tidy = _tidy(fact)
    if across.half_released(fact):
        tidy += across.released(fact)
        fact = replace(fact, directory=Entry(), beside=Entry())
    if fact.row.kind == "bind":
        return tidy + _adopt_bind(fact)
    if repoint.adopts(fact):
        return tidy + repoint.adopt(fact)
    if _was_bound(fact):
        return _adopt_bound(fact)
    if fact.path.is_directory and fact.copies:
        refuse.mounts(fact)
        refuse.declarations(fact)
        return tidy + across.adopt(fact) + _inside(fact)
    if fact.path.is_directory:
        return tidy + (_adopt_volatile(fact) if fact.volatile else _adopt_directory(fact))
    if not (fact.path.is_absent or fact.adopted):
        refuse.foreign(fact)
    return tidy + _complete(fact) + across.adopted(fact)


def _adopt_directory(fact: RowFacts) -> Steps:
    """The exchange itself."""
    row = fact.row
    _check(fact)
    steps: Steps = []
    if fact.directory.is_directory and fact.directory.empty:
        steps.append(RemoveEmpty(row.directory))
    elif not (fact.directory.is_absent or _ours(fact)):
        refuse.occupied(fact, fact.directory, row.directory)
    if not _ours(fact):
        steps.append(MakeLink(row.directory, row.target))
    steps.append(Sync((parent(row.directory),)))
    return steps + _detach(fact) + _exchange(row.path, row.directory) + _inside(fact)


def _complete(fact: RowFacts) -> Steps:
    """A link where there is none yet, and the directory it leads to."""
    row = fact.row
    steps: Steps = []
    if not (fact.copies or (fact.directory.is_directory and fact.adopted)):
        refuse.one_file_system(fact)
    if fact.directory.is_absent or _ours(fact):
        refuse.over(fact)
        if _ours(fact):
            steps.append(RemoveLink(row.directory, fact.directory.content))
        steps.append(MakeDirectory(row.directory, row.mode))
    elif not fact.directory.is_directory:
        refuse.occupied(fact, fact.directory, row.directory)
    inside = _inside(fact)
    if steps and not inside and not fact.volatile:
        steps.append(Sync((parent(row.directory),)))
    steps += inside
    if fact.path.is_absent:
        refuse.declarations(fact)
        steps += [MakeLink(row.path, row.target), Sync((parent(row.path),))]
    return steps


def _adopt_volatile(fact: RowFacts) -> Steps:
    """An empty directory gives way to a link, by an exchange with a name beside it."""
    row = fact.row
    _check(fact)
    aside = _aside(fact)
    steps: Steps = []
    if fact.directory.is_absent:
        steps.append(MakeDirectory(row.directory, row.mode))
    elif not fact.directory.is_directory:
        refuse.occupied(fact, fact.directory, row.directory)
    steps += [MakeLink(aside, row.target), Sync((parent(row.path),))]
    steps += [*_detach(fact), *_exchange(row.path, aside), RemoveEmpty(aside)]
    return [*steps, Sync((parent(row.path),))]


def _was_bound(fact: RowFacts) -> bool:
    """Whether the directory is where it belongs, bound to the path or about to get its link."""
    bound = any(mount.own and mount.of == fact.row.directory for mount in fact.mounts)
    there = fact.path.empty and fact.directory.is_directory and not fact.volatile
    return there and (bound or fact.leads(fact.beside))


def _adopt_bound(fact: RowFacts) -> Steps:
    """A row that was `bind` becomes a link: what was mounted on gives way to it."""
    row = fact.row
    _check(fact)
    aside = _aside(fact)
    # The link of an interrupted run stays: it is the proof of whose the directory is.
    steps = [] if fact.leads(fact.beside) else [*_tidy(fact), MakeLink(aside, row.target)]
    steps += [Sync((parent(row.path),)), *_detach(fact), *_exchange(row.path, aside)]
    return [*steps, RemoveEmpty(aside), Sync((parent(row.path),)), *_inside(fact)]


def _adopt_bind(fact: RowFacts) -> Steps:
    """The same with an empty directory in the place of the link: something to mount on."""
    row = fact.row
    bound = any(mount.own and mount.of == row.directory for mount in fact.mounts)
    if bound:
        return []
    _check(fact)
    steps: Steps = []
    if _ours(fact):
        steps.append(RemoveLink(row.directory, fact.directory.content))
    elif not (fact.directory.is_absent or fact.directory.is_directory):
        refuse.occupied(fact, fact.directory, row.directory)
    if not fact.directory.is_directory:
        steps.append(MakeDirectory(row.directory, row.mode))
    changed = [Sync((parent(row.directory),))] if steps else []
    if fact.linked:
        aside = _aside(fact)
        steps += [*changed, MakeDirectory(aside, row.mode), *_exchange(row.path, aside)]
        steps += [RemoveLink(aside, fact.path.content), Sync((parent(row.path),))]
    elif fact.path.is_absent:
        steps += [*changed, MakeDirectory(row.path, row.mode), Sync((parent(row.path),))]
    elif not fact.path.is_directory:
        refuse.foreign(fact)
    elif not fact.path.empty:
        if fact.directory.is_directory and not fact.directory.empty:
            refuse.occupied(fact, fact.directory, row.directory)
        steps += [*changed, *_detach(fact), *_exchange(row.path, row.directory)]
    else:
        steps += [*changed, *_detach(fact)]
    return [*steps, *_inside(fact), Attach(row.path, row.directory)]


def _release(fact: RowFacts) -> Steps:  # noqa: PLR0911 - one for each way
    row = fact.row
    steps = _tidy(fact)
    if repoint.half_released(fact):
        return steps + repoint.released(fact)
    if repoint.releases(fact):
        return steps + repoint.release(fact)
    if across.half_released(fact):
        return steps + across.released(fact) + _writable(fact)
    if fact.path.is_directory:
        return steps + _release_directory(fact)
    if fact.path.is_absent:
        if not fact.directory.is_directory or fact.volatile or (fact.at_boot and not _kept(fact)):
            steps += [MakeDirectory(row.path, row.mode), Sync((parent(row.path),))]
            return steps + _leftover(fact) + _writable(fact)
        steps.append(MakeLink(row.path, row.target))
    elif not fact.linked:
        refuse.foreign(fact)
    if fact.volatile or (fact.at_boot and not _kept(fact)):
        return steps + _release_volatile(fact)
    if fact.copies and fact.directory.is_directory:
        return steps + across.release(fact) + _writable(fact)
    refuse.one_file_system(fact)
    refuse.over(fact)
    if fact.directory.is_absent:
        steps += [MakeDirectory(row.directory, row.mode), Sync((parent(row.directory),))]
    elif not fact.directory.is_directory:
        refuse.occupied(fact, fact.directory, row.directory)
    steps += _exchange(row.path, row.directory)
    steps += [RemoveLink(row.directory, _content(fact)), Sync((parent(row.directory),))]
    return steps + _writable(fact)


def _release_directory(fact: RowFacts) -> Steps:
    """The directory is there already: undo a bind, or tidy up after an interrupted run."""
    row = fact.row
    steps: Steps = []
    if row.kind == "bind" and fact.directory.is_directory:
        refuse.over(fact)
        if fact.path.empty:
            refuse.one_file_system(fact)
            steps += [*_detach(fact), *_exchange(row.path, row.directory)]
        if fact.path.empty or fact.directory.empty:
            # The directory that was mounted on; after an interrupted run it is all there is.
            steps += [RemoveEmpty(row.directory), Sync((parent(row.directory),))]
        return steps if fact.mounts and not fact.path.empty else steps + _writable(fact)
    steps += _leftover(fact)
    return steps if fact.mounts else steps + _writable(fact)


def _release_volatile(fact: RowFacts) -> Steps:
    """A new directory in the link's place; there is nothing to bring back."""
    row = fact.row
    aside = _aside(fact)
    steps: Steps = [MakeDirectory(aside, row.mode), Sync((parent(row.path),))]
    steps += _exchange(row.path, aside)
    steps += [RemoveLink(aside, _content(fact)), Sync((parent(row.path),))]
    return steps + _writable(fact)


def _check(fact: RowFacts) -> None:
    """Everything that keeps a directory from changing places."""
    refuse.mounts(fact)
    refuse.declarations(fact)
    refuse.one_file_system(fact)


def _ours(fact: RowFacts) -> bool:
    """Whether a run that was interrupted left its link where the directory is to go."""
    return not fact.volatile and fact.leads(fact.directory)


def _kept(fact: RowFacts) -> bool:
    """Whether the /tmp that was there before can come back: no tmpfs lies over it."""
    return fact.over is None and fact.directory.is_directory and fact.directory_parent.same


def _leftover(fact: RowFacts) -> Steps:
    """Take that link away again."""
    place = fact.row.directory
    if not _ours(fact):
        return []
    return [RemoveLink(place, fact.directory.content), Sync((parent(place),))]


def _free(fact: RowFacts) -> bool:
    """Whether the name beside the path holds nothing, or what an interrupted run left there."""
    aside = fact.beside
    return aside.is_absent or fact.leads(aside) or aside.empty


def _aside(fact: RowFacts) -> str:
    """The name beside the path, for an exchange. Raises TargetExists where it is taken."""
    if not _free(fact):
        refuse.occupied(fact, fact.beside, beside(fact.row.path))
    return beside(fact.row.path)


def _content(fact: RowFacts) -> str:
    """What the row's link contains: people write the same link in more than one way."""
    return fact.path.content if fact.linked else fact.row.target


def _exchange(path: str, other: str) -> Steps:
    places = dict.fromkeys((parent(path), parent(other)))
    return [Exchange(path, other), Sync(tuple(places))]


def _detach(fact: RowFacts) -> Steps:
    return [Detach(fact.row.path, mount.of) for mount in fact.mounts]


def _inside(fact: RowFacts) -> Steps:
    """The directories that belong into the row's own, /usr/local/bin and so on."""
    home = fact.row.directory
    steps: Steps = [MakeDirectory(f"{home}/{name}", 0o755) for name in fact.missing]
    return [*steps, Sync((home, parent(home)))] if steps else []


def _tidy(fact: RowFacts) -> Steps:
    """Remove what an interrupted run left at the name beside the path."""
    aside = beside(fact.row.path)
    if fact.leads(fact.beside):
        return [RemoveLink(aside, fact.beside.content)]
    return [RemoveEmpty(aside)] if fact.beside.empty else []


def _writable(fact: RowFacts) -> Steps:
    """On a read-only root a directory that came back has to stay writable, as boot makes it."""
    return [Attach(fact.row.path, fact.row.path)] if fact.path_parent.read_only else []


def _profiles(rows: list[Row], observed: Observed) -> Steps:
    has, text = observed.apparmor, apparmor.text(rows)
    if not has.installed or text == (has.text or ""):
        return []
    steps: Steps = [WriteFile(apparmor.FILE, text) if text else RemoveFile(apparmor.FILE)]
    return [*steps, ReloadProfiles()] if has.active else steps
