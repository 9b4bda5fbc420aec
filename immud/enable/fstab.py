"""The lines of fstab(5), and what of them speaks against enabling."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from immud.config.rules import within
from immud.early.observe import FSTAB, fstab_fields
from immud.early.plan import Row
from immud.enable.finding import finding
from immud.model import Config, Problem, Severity

# What its lines are called, where the /etc that is shown has another fstab.
OWN = " (the root file system's own)"
# How to get at that: a lease sees all of / writable, and what it mounts is gone with it.
EDIT_OWN = 'immud unlock -- sh -c "mount --bind / /mnt && editor /mnt/etc/fstab; umount /mnt"'


@dataclass(frozen=True, slots=True)
class FstabLine:
    """A line of fstab(5); `own` where it is in the root file system's own and another is shown."""

    line: int
    what: str
    where: str
    fstype: str
    own: bool = False

    @property
    def place(self) -> str:
        """What a person looks for."""
        return f"{FSTAB}:{self.line}{OWN if self.own else ''}"


def read(path: str, *, own: bool = False) -> tuple[FstabLine, ...]:
    """The lines of the file at `path`; none where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return parse(file.read(), own=own)
    except OSError:
        return ()


def parse(text: str, *, own: bool = False) -> tuple[FstabLine, ...]:
    """The lines of an fstab(5); what mount(8) would not understand is left out."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        fields = fstab_fields(line)
        if len(fields) >= 3:
            where = posixpath.normpath(fields[1])
            found.append(FstabLine(number, fields[0], where, fields[2], own))
    return tuple(found)


def check(config: Config, lines: tuple[FstabLine, ...], links: frozenset[str]) -> Iterator[Problem]:
    """What speaks against enabling; `links` are those of the configuration's paths that are one."""
    for line in lines:
        if line.fstype == "swap":
            yield from _swap(line)
        elif line.where in ("/usr", "/etc"):
            yield _found(
                line,
                f"{line.where} is mounted from here as well as by immud",
                f"make sure that the root file system has a {line.where} of its own that boots, "
                f"then remove the line (the key for another one is {line.where[1:]}.source)",
                why="mounting it from both can hang the boot",
            )
        elif line.where == "/var" and config.var != "/var":
            why = "var.source names another place"
            yield _found(line, "/var is mounted from here", "remove one of the two", why=why)
        else:
            yield from _tombs(config, line, links)
            yield from _rows(config.rows, line, links)


def _found(
    line: FstabLine,
    what: str,
    do: str,
    *,
    severity: Severity = Severity.ERROR,
    code: str = "fstab",
    why: str = "",
    mend: tuple[str, ...] = (),
) -> Problem:
    if line.own and not mend:
        mend = (f"# {do}, with:", EDIT_OWN)
        do = f"{do}, with: {EDIT_OWN}"
    path = line.what if code == "swap-file" else line.where
    return finding(severity, code, f"{line.place}: {what}", do, why=why, mend=mend, path=path)


def _swap(line: FstabLine) -> Iterator[Problem]:
    if line.what.startswith("/") and not line.what.startswith(("/dev/", "/var/")):
        what = f"the swap file {line.what} cannot be used once / is read-only"
        yield _found(line, what, "move it below /var", code="swap-file")


def _tombs(config: Config, line: FstabLine, links: frozenset[str]) -> Iterator[Problem]:
    behind = [r for r in config.rows if r.path in links and within(line.where, r.path)]
    places = (line.where, *(_moved(row, line) for row in behind))
    for tomb in config.tombs:
        if tomb.mount in places:
            yield _found(
                line,
                f"{line.where} is where tomb {tomb.name} goes",
                "remove the line, or give the tomb another mount",
                why="one of the two would hide the other",
            )


def _rows(rows: tuple[Row, ...], line: FstabLine, links: frozenset[str]) -> Iterator[Problem]:
    for row in rows:
        if not within(line.where, row.path) or line.fstype == "tmpfs":
            continue
        moved = _moved(row, line)
        if row.path in links:
            # Its fstab generator follows links, which a mount unit that somebody wrote must not.
            yield _found(
                line,
                f"{line.where} is behind the link {row.path}",
                f"write {moved}",
                severity=Severity.WARNING,
                why="systemd mounts it where that leads",
            )
        else:
            adopt = f"immud adopt {row.path}" if line.where == row.path else ""
            yield _found(
                line,
                f"mounts {line.where}, so {row.path} stays a directory",
                f"to have the link, {f'run {adopt}' if adopt else f'write {moved}'}, or drop the "
                f'row with "{row.path}" = false',
                severity=Severity.WARNING,
                mend=(adopt,) if adopt else (),
            )


def _moved(row: Row, line: FstabLine) -> str:
    return row.directory + line.where.removeprefix(row.path)
