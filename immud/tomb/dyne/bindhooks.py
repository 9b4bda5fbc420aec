"""Dyne's bind-hooks: a tomb that says itself where its directories are to be seen. Pure.

A file `bind-hooks` at the top of the tomb has a pair of paths a line, the first in the tomb, the
second in the home of its owner (tomb(1), HOOKS). It comes with the drive, so nothing in it is
believed: whatever could lead out of either is refused, and Dyne's `..` in the middle as well.
"""

from immud.errors import ImmudError
from immud.tomb.fs.beneath import parts

FILE = "bind-hooks"
NEVER = "exec-hooks"
"""Dyne executes this one, as root. It is somebody's file on a drive: here it never is."""
LINES_MAX = 256

Pair = tuple[str, str]


def parse(data: bytes) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """The pairs of a bind-hooks file, and a sentence for each line that is none.

    A line has two words; what would need quotes cannot be said in this format.
    """
    pairs: list[Pair] = []
    wrong = []
    lines = data.split(b"\n")
    if len(lines) > LINES_MAX:
        wrong.append(f"{FILE} has more than {LINES_MAX} lines; the rest is left out.")
    for number, line in enumerate(lines[:LINES_MAX], 1):
        try:
            pairs += _pair(line, pairs)
        except (ImmudError, UnicodeDecodeError) as error:
            wrong.append(f"{FILE}, line {number} is left out: {error}")
    return tuple(pairs), tuple(wrong)


def _pair(line: bytes, before: list[Pair]) -> list[Pair]:
    words = line.decode().split()
    if not words or words[0].startswith("#"):
        return []
    if len(words) != 2:
        raise ImmudError(f"it has {len(words)} words; a path in the tomb and one in the home it is")
    # As tomb(1) has them: a directory may be written with a slash after it.
    source, target = (word[:-1] if word.endswith("/") else word for word in words)
    for path in (source, target):
        parts(path)
        if not path.isprintable():
            raise ImmudError(f"{path!r} has characters in it that cannot be printed.")
    for _, other in before:
        if f"{target}/".startswith(f"{other}/") or f"{other}/".startswith(f"{target}/"):
            raise ImmudError(f"{target} and {other} are one inside the other.")
    return [(source, target)]
