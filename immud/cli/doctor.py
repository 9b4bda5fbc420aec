"""`immud doctor`."""

import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterator

from immud.cli.enable import require_root
from immud.cli.render import Style, visible
from immud.doctor.facts import Advice, Seen
from immud.doctor.judge import judge
from immud.doctor.look import see
from immud.doctor.mend import FIXES
from immud.errors import ImmudError
from immud.model import Severity


def doctor(arguments: Namespace) -> int:
    """Say what is in the way, mend what is safe if asked to; 1 while an error is left."""
    require_root("immud doctor")
    seen = see()
    advice = judge(seen)
    if arguments.fix:
        _fix(seen, advice)
        advice = judge(see())
    if arguments.json:
        import json  # noqa: PLC0415 - only here
        from dataclasses import asdict  # noqa: PLC0415

        print(json.dumps([asdict(one) for one in advice], indent=2))
    else:
        for line in lines(advice, Style.of(sys.stdout)):
            print(line)
    return int(any(one.severity is Severity.ERROR for one in advice))


def _fix(seen: Seen, advice: tuple[Advice, ...]) -> None:
    for one in advice:
        if one.fix:
            try:
                print(f"fixed: {FIXES[one.fix](seen)}", file=sys.stderr)
            except (ImmudError, OSError) as error:
                print(f"not fixed: {one.what}: {error}", file=sys.stderr)


def lines(advice: tuple[Advice, ...], style: Style) -> Iterator[str]:
    """The page: each thing with its reason, and the commands against it."""
    if not advice:
        yield "Nothing is in the way."
    for one in advice:
        label = f"{one.severity.value}:"
        body = f"{one.what}; {one.why}." if one.why else f"{one.what}."
        text = visible(body[0].upper() + body[1:])
        wrapped = textwrap.wrap(text, style.width - 9, break_on_hyphens=False)
        yield style.word(one.severity.value, f"{label:<9}") + wrapped[0]
        yield from (" " * 9 + line for line in wrapped[1:])
        yield from (" " * 13 + visible(command) for command in one.mend)
        if one.fix:
            yield " " * 9 + "immud doctor --fix does that."
