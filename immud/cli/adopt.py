"""`immud adopt` and `immud release`."""

import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from immud.cli.enable import require_root
from immud.config.compile import recompile
from immud.config.load import load
from immud.early.plan import Row
from immud.errors import UsageError


def adopt(arguments: Namespace) -> int:
    """Move directories behind their links."""
    require_root("immud adopt")
    # After the right to use it is clear.
    from immud.adopt import adopt as change  # noqa: PLC0415
    from immud.adopt import finish  # noqa: PLC0415

    if arguments.finish:
        return _change(finish, arguments, "Nothing to remove: no original is kept.")

    return _change(change, arguments, "Nothing to adopt: every row is as it should be.")


def release(arguments: Namespace) -> int:
    """Put directories back."""
    require_root("immud release")
    from immud.adopt import release as change  # noqa: PLC0415 - as above

    return _change(change, arguments, "Nothing to release: no row is adopted.")


def _change(change: Callable[..., Any], arguments: Namespace, nothing: str) -> int:
    table = load().rows
    rows = chosen(table, arguments.paths)

    def progress(step: Any) -> None:
        if not arguments.json:
            print(step.describe(), flush=True)

    def told(words: str) -> None:
        if sys.stderr.isatty():
            print(f"\r{words}\x1b[K", end="\r", file=sys.stderr, flush=True)

    outcome = change(rows, table, dry_run=arguments.dry_run, progress=progress, told=told)
    if not arguments.dry_run:
        recompile()
    if arguments.json:
        import json  # noqa: PLC0415 - only here

        steps = [
            {"operation": type(s).__name__, "description": s.describe()} for s in outcome.steps
        ]
        record = {"steps": steps, "notes": list(outcome.notes), "reboot": outcome.reboot}
        print(json.dumps(record | {"done": not arguments.dry_run}, indent=2))
        return 0
    if arguments.dry_run:
        for step in outcome.steps:
            print(step.describe())
    for note in outcome.notes:
        print(note, file=sys.stderr)
    if not outcome.steps:
        print(nothing)
    if outcome.reboot:
        print(outcome.reboot)
    return 0


def chosen(table: tuple[Row, ...], paths: list[str]) -> tuple[Row, ...]:
    """The rows of the named paths, or all. Raises UsageError for a path that is no row."""
    if not paths:
        return table
    wanted = [path.rstrip("/") or "/" for path in paths]
    known = {row.path: row for row in table}
    for path in wanted:
        if path not in known:
            raise UsageError(f"{path} is not in the layout; its rows are " + ", ".join(known))
    return tuple(row for row in table if row.path in wanted)
