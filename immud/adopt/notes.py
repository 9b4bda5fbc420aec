"""What a person is told besides the steps: what was left alone, and whether to reboot."""

from immud.adopt.facts import Observed, kept
from immud.adopt.plan import left_alone
from immud.adopt.steps import Detach, Exchange, Step
from immud.early.plan import Row


def adopt_notes(rows: tuple[Row, ...], observed: Observed) -> tuple[str, ...]:
    """A sentence for each row that adopting leaves as it is."""
    chosen = [fact for fact in observed.rows if fact.row in rows]
    notes = [note for fact in chosen if (note := left_alone(fact))]
    copied = [
        fact.row.path
        for fact in chosen
        if fact.copies
        and ((fact.path.is_directory and not fact.path.empty) or fact.kept.is_directory)
    ]
    if copied:
        notes.append(
            f"The originals are kept ({_list({kept(path) for path in copied})}) until you "
            f"run: immud adopt --finish {' '.join(copied)}"
        )
    return tuple(notes)


def release_notes(rows: tuple[Row, ...], observed: Observed) -> tuple[str, ...]:
    """A sentence where what a row leads to is not what its path will show."""
    return tuple(
        f"{fact.row.path} becomes a new, empty directory; what is in {fact.row.directory} "
        "stays there until the next boot."
        for fact in observed.rows
        if fact.row in rows and fact.adopted and (fact.volatile or (fact.at_boot and fact.over))
    )


def reboot_due(steps: tuple[Step, ...], observed: Observed) -> str:
    """Why a reboot is due after `steps`, and by when; the empty string where none is."""
    moved = {step.path for step in steps if isinstance(step, Exchange)}
    reasons = []
    if "/tmp" in moved:
        reasons.append("running programs have their sockets in the /tmp that was")
    held = {step.path for step in steps if isinstance(step, Detach)} & moved
    if held:
        reasons.append(
            f"programs whose working directory is in {_list(held)} no longer know its name "
            "(their open files are fine)"
        )
    views = [view for view in observed.views if view.path in moved]
    if views:
        names = dict.fromkeys(f"{view.name} (process {view.pid})" for view in views)
        its, keep = ("its", "keeps") if len(names) == 1 else ("their", "keep")
        reasons.append(
            f"{_list(names)} started with {its} own view of {_list({v.path for v in views})} "
            f"and {keep} the old one"
        )
    if not reasons:
        return ""
    when = "now" if "/tmp" in moved else "when convenient"
    return f"Reboot {when}: {'; '.join(reasons)}."


def _list(names: "set[str] | dict[str, str] | dict[str, None]") -> str:
    ordered = sorted(names) if isinstance(names, set) else list(names)
    return ordered[0] if len(ordered) == 1 else ", ".join(ordered[:-1]) + f" and {ordered[-1]}"
