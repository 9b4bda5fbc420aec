"""`immud adopt` and `immud release`: a stock system's directories behind links, and back.

What a command needs is here. `rows` are the rows to change, `table` the whole
layout (`Config.rows`); both calls raise an ImmudError before the first effect
where any row cannot be changed, and plan nothing where nothing is to do:

    outcome = adopt(rows, table, dry_run=True)
    for step in outcome.steps:
        print(step.describe())
    for note in outcome.notes:      # what was left as it is, and why
        print(note)
    if outcome.reboot:              # a sentence: when and why, or ""
        print(outcome.reboot)

`progress`, if given, is called with each step before it is performed, `told` with a few words
now and then by what takes long. The steps of a dry run are those that a real run would perform, in
their order. Root only.
"""

from collections.abc import Callable
from dataclasses import dataclass

from immud.adopt import room
from immud.adopt.execute import carry_out
from immud.adopt.notes import adopt_notes, reboot_due, release_notes
from immud.adopt.observe import observe
from immud.adopt.plan import adopt_steps, finish_steps, release_steps
from immud.adopt.root import open_root
from immud.adopt.steps import Step
from immud.early.plan import Row

Progress = Callable[[Step], None]
Told = Callable[[str], None]


def _silent(_words: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, or would be: the steps, what was left alone, and why a reboot is due."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    reboot: str


def adopt(
    rows: tuple[Row, ...],
    table: tuple[Row, ...],
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    told: Told = _silent,
) -> Outcome:
    """Move the directories of `rows` behind their links.

    Raises OtherFileSystem, TargetExists, Busy or another ImmudError; the text says what to do.
    """
    with open_root(lock=not dry_run) as root:
        observed = observe(root, table)
        steps = adopt_steps(rows, observed)
        room.check(root, steps, told)
        if not dry_run:
            carry_out(root, steps, progress, told)
        return Outcome(steps, adopt_notes(rows, observed), reboot_due(steps, observed))


def release(
    rows: tuple[Row, ...],
    table: tuple[Row, ...],
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    told: Told = _silent,
) -> Outcome:
    """Put the directories of `rows` back in place of their links. Raises as `adopt` does."""
    with open_root(lock=not dry_run) as root:
        observed = observe(root, table)
        steps = release_steps(rows, observed)
        room.check(root, steps, told)
        if not dry_run:
            carry_out(root, steps, progress, told)
        return Outcome(steps, release_notes(rows, observed), reboot_due(steps, observed))


def finish(
    rows: tuple[Row, ...],
    table: tuple[Row, ...],
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    told: Told = _silent,
) -> Outcome:
    """Remove what adopting or releasing `rows` kept when it copied them. Raises as `adopt` does."""
    with open_root(lock=not dry_run) as root:
        steps = finish_steps(rows, observe(root, table))
        if not dry_run:
            carry_out(root, steps, progress, told)
        return Outcome(steps, (), "")
