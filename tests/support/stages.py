"""Where the time goes: long parts are announced as they begin and summed up at the end."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

taken: list[tuple[str, float]] = []
"""The stages that have ended: what each was, and its seconds."""


def _announce(text: str) -> None:
    print(text, file=sys.__stderr__, flush=True)


announce: Callable[[str], None] = _announce
"""Where a stage says that it begins: the terminal, past any capture."""


_depth = 0
_since = 0.0


def spent() -> float:
    """Seconds that went into stages so far; the limit on a test's time does not count them."""
    return sum(seconds for _, seconds in taken) + (time.monotonic() - _since if _depth else 0.0)


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Announce `name`, and record how long the block took. The outermost one is recorded."""
    global _depth, _since  # noqa: PLW0603 the terminal is one as well
    if not _depth:
        announce(f"# {name}")
        _since = time.monotonic()
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            taken.append((name, time.monotonic() - _since))
