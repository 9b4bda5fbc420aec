"""The lines of fstab(5), as the checks before enabling judge them."""

import posixpath
from dataclasses import dataclass

from immud.early.plan import unescape


@dataclass(frozen=True, slots=True)
class FstabLine:
    """A line of fstab(5)."""

    line: int
    what: str
    where: str
    fstype: str


def read(path: str) -> tuple[FstabLine, ...]:
    """The lines of the file at `path`; none where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return parse(file.read())
    except OSError:
        return ()


def parse(text: str) -> tuple[FstabLine, ...]:
    """The lines of an fstab(5); what mount(8) would not understand is left out."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        try:
            what, where = unescape(fields[0]), unescape(fields[1])
        except ValueError:
            what, where = fields[0], fields[1]
        found.append(FstabLine(number, what, posixpath.normpath(where), fields[2]))
    return tuple(found)
