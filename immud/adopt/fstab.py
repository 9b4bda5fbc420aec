"""A line of fstab(5) gets another mount point, and gets back what it was.

Where /etc comes from elsewhere there are two such files: PID 1 mounts what the root file system's
own asks for, and phase 1 makes links by it, before they see the one that is shown.
"""

import os

from immud.adopt.root import own_etc
from immud.early.observe import FSTAB, fstab_fields
from immud.errors import ImmudError

# Before a line that was changed, with what it was: comments and spaces, too, come back.
WAS = "# Changed by `immud adopt`, put back by `immud release`; it was: "


def own(root: int) -> str:
    """A path of the root file system's own file; "" where it is the one that is shown, or none."""
    path = f"{etc}/fstab" if (etc := own_etc(root)) else ""
    return path if path and os.path.exists(path) else ""


def moved(text: str, old: str, new: str) -> str:
    """`text` with what was to be mounted at `old` at `new`. Raises ImmudError."""
    lines = text.split("\n")
    found = _lines(text, old)
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


def rewrite(root: int, old: str, new: str) -> None:
    """The same in each file that has such a line; to flush the directories is up to the caller."""
    files = {path: _read(path) for path in (FSTAB, own(root)) if path}
    having = {path: text for path, text in files.items() if _lines(text, old)}
    # All that can be refused is, before the first of them is another.
    texts = {path: moved(text, old, new) for path, text in (having or files).items()}
    for path, text in texts.items():
        _replace(path, text)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _replace(path: str, text: str) -> None:
    """In one rename(2)."""
    status = os.stat(path)
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


def _lines(text: str, where: str) -> list[int]:
    return [at for at, line in enumerate(text.split("\n")) if _where(line) == where]


def _where(line: str) -> str:
    fields = fstab_fields(line)
    return fields[1].rstrip("/") or "/" if len(fields) > 1 else ""


def _escaped(path: str) -> str:
    """As fstab(5) wants it: what would end the field is octal."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in path)
