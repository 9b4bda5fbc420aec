"""A line of fstab(5) gets another mount point, and gets back what it was."""

import os

from immud.adopt.declared import FSTAB
from immud.early.plan import unescape
from immud.errors import ImmudError

# Before a line that was changed, with what it was: comments and spaces, too, come back.
WAS = "# Changed by `immud adopt`, put back by `immud release`; it was: "


def moved(text: str, old: str, new: str) -> str:
    """`text` with what was to be mounted at `old` at `new`. Raises ImmudError."""
    lines = text.split("\n")
    found = [at for at, line in enumerate(lines) if _where(line) == old]
    if len(found) != 1:
        raise ImmudError(f"{FSTAB} has {len(found)} lines for {old} now, and had one before")
    at = found[0]
    was = lines[at - 1].removeprefix(WAS) if at and lines[at - 1].startswith(WAS) else ""
    if _where(was) == new:
        lines[at - 1 : at + 1] = [was]
    else:
        head, _, rest = _split(lines[at])
        lines[at : at + 1] = [WAS + lines[at], head + _escaped(new) + rest]
    return "\n".join(lines)


def rewrite(old: str, new: str, path: str = FSTAB) -> None:
    """The same in the file, in one rename(2); to flush the directory is up to the caller."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        text = moved(file.read(), old, new)
        status = os.fstat(file.fileno())
    aside = f"{path}.immud"
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as written:
        written.write(text.encode("utf-8", "surrogateescape"))
        written.flush()
        os.fchown(fd, status.st_uid, status.st_gid)
        os.fchmod(fd, status.st_mode & 0o7777)
        os.fsync(fd)
    os.rename(aside, path)


def _split(line: str) -> tuple[str, str, str]:
    """What is before the second field, that, and what is after it."""
    source = line.split(maxsplit=1)[0]
    start = line.index(source) + len(source)
    where = line[start:].split(maxsplit=1)[0]
    start = line.index(where, start)
    return line[:start], where, line[start + len(where) :]


def _where(line: str) -> str:
    fields = line.split()
    if len(fields) < 2 or fields[0].startswith("#"):
        return ""
    return unescape(fields[1]).rstrip("/") or "/"


def _escaped(path: str) -> str:
    """As fstab(5) wants it: what would end the field is octal."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in path)
