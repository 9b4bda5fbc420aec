"""Text for people: tables, sentences and a little colour. Pure.

Everything fits in 80 columns; colour only adds to words, it never says anything
alone, and is used only on a terminal and without NO_COLOR (https://no-color.org).
"""

import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TextIO

from immud.model import LeaseView, LinkFact, ManagerState, MountFact, Problem, TombState, TombView

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_GOOD, _BAD, _POOR, _PLAIN = "green", "red", "yellow", "dim"
_WORDS = {
    # of the whole
    "running": _GOOD,
    "degraded": _BAD,
    "starting": _POOR,
    "stopping": _POOR,
    # of mounts and links
    "mounted": _GOOD,
    "adopted": _GOOD,
    "bound": _GOOD,
    "tmpfs": _GOOD,
    "unadopted": _POOR,
    "foreign": _POOR,
    "blocked": _POOR,
    "missing": _BAD,
    "writable": _BAD,
    # of tombs and jobs
    "open": _GOOD,
    "done": _GOOD,
    "absent": _PLAIN,
    "lost": _BAD,
    "failed": _BAD,
    "ambiguous": _BAD,
    "unlocking": _POOR,
    "checking": _POOR,
    "closing": _POOR,
    # of problems
    "error": _BAD,
    "warning": _POOR,
    "notice": _PLAIN,
}


class Style(NamedTuple):
    """How wide the page is, and whether it has colours."""

    width: int = 80
    colour: bool = False

    @classmethod
    def of(cls, stream: TextIO) -> "Style":
        """The style for what is written to `stream`."""
        if not stream.isatty():
            return cls()
        try:
            width = os.get_terminal_size(stream.fileno()).columns
        except OSError:
            width = 0
        colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
        return cls(max(width, 40) if width else 80, colour)

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.colour and text else text

    def word(self, word: str, text: str = "") -> str:
        """`text`, or the word itself, in the colour the state or severity `word` has."""
        colour = _WORDS.get(word)
        return self.paint(text or word, colour) if colour else text or word


def visible(text: str) -> str:
    """`text` with what a terminal would act on made visible: names come from the disk."""
    return "".join(c if c.isprintable() else f"\\{ord(c):03o}" for c in text)


def problem_lines(problems: Iterable[Problem], style: Style) -> Iterator[str]:
    """Each problem as its severity and a wrapped sentence."""
    for problem in problems:
        label = f"{problem.severity.value}:"
        indent = " " * 9
        wrapped = textwrap.wrap(
            visible(problem.text),
            style.width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        first = wrapped[0] if wrapped else ""
        yield style.word(problem.severity.value, f"{label:<9}") + first[9:]
        yield from wrapped[1:]


def problem_json(problem: Problem) -> dict[str, object]:
    """A problem for programs."""
    return {
        "severity": problem.severity.value,
        "code": problem.code,
        "text": problem.text,
        "data": dict(problem.data),
    }


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], style: Style, *, states: int = -1
) -> Iterator[str]:
    """Columns under headers; the last is shortened where the page ends.

    The cells of column number `states` have the colours of their words.
    """
    cells = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(line[at]) for line in [list(headers), *cells]) for at in range(len(headers))]
    for number, line in enumerate([list(headers), *cells]):
        left = style.width - 2
        shown = []
        for at, cell in enumerate(line):
            last = at == len(line) - 1
            text = _shorten(cell, max(left, 8)) if last else f"{cell:<{widths[at]}}"
            left -= widths[at] + 2
            if not number:
                text = style.paint(text, "dim")
            elif at == states:
                text = style.word(cell, text)
            shown.append(text)
        yield ("  " + "  ".join(shown)).rstrip()


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


class Snapshot(NamedTuple):
    """What `immud status` shows, from one look at the daemon."""

    version: str
    state: ManagerState
    usr_read_only: bool
    root_read_only: bool
    home_tomb: str = ""
    problems: tuple[Problem, ...] = ()
    mounts: tuple[MountFact, ...] = ()
    links: tuple[LinkFact, ...] = ()
    tombs: tuple[TombView, ...] = ()
    leases: tuple[LeaseView, ...] = ()


def status_lines(snapshot: Snapshot, style: Style) -> Iterator[str]:
    """The whole of `immud status`."""
    state = style.word(snapshot.state.value)
    yield f"immud {snapshot.version}: {state}, {_summary(snapshot)}"
    if snapshot.problems:
        yield ""
        yield style.paint("Problems", "bold")
        yield from problem_lines(snapshot.problems, style)
    for title, headers, rows in (
        ("Mounts", ("PATH", "STATE", "ACCESS", "FROM"), [_mount(m) for m in snapshot.mounts]),
        ("Links", ("PATH", "STATE", "LEADS TO"), [_link(link) for link in snapshot.links]),
        ("Tombs", ("NAME", "STATE", "AT", "DRIVE"), [_tomb(tomb) for tomb in snapshot.tombs]),
        ("Leases", ("FOR", "SINCE", "WHY"), [_lease(lease) for lease in snapshot.leases]),
    ):
        if rows:
            yield ""
            yield style.paint(title, "bold")
            yield from table(headers, rows, style, states=1)


def _summary(snapshot: Snapshot) -> str:
    if snapshot.state is ManagerState.OFF:
        if any(problem.code == "enabled-later" for problem in snapshot.problems):
            return "nothing is protected before the next boot"
        return "this boot was asked to leave the layout alone (immud=off)"
    frozen = {"/usr": snapshot.usr_read_only, "/": snapshot.root_read_only}
    closed = [path for path, read_only in frozen.items() if read_only]
    opened = [path for path, read_only in frozen.items() if not read_only]
    parts = [
        f"{' and '.join(paths)} {'is' if len(paths) == 1 else 'are'} {how}"
        for paths, how in ((closed, "read-only"), (opened, "writable"))
        if paths
    ]
    if snapshot.home_tomb:
        parts.append(f"home is tomb {snapshot.home_tomb}")
    return ", ".join(parts)


def _lease(lease: LeaseView) -> tuple[str, ...]:
    import time  # noqa: PLC0415 - there are few

    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(lease.since / 1e6))
    return user(lease.who), since, ("a trial: " if lease.trial else "") + lease.why


def user(uid: int) -> str:
    """The name of a user, or the number of one who has none."""
    import pwd  # noqa: PLC0415 - only here

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _mount(mount: MountFact) -> tuple[str, ...]:
    access = "read-only" if mount.read_only else "writable"
    what = f"{mount.what} ({mount.fstype})" if mount.fstype else mount.what
    return mount.where, mount.state, "" if mount.state == "missing" else access, what


def _link(link: LinkFact) -> tuple[str, ...]:
    return link.path, link.state, link.target


def _tomb(tomb: TombView) -> tuple[str, ...]:
    drive = tomb.device or tomb.label or tomb.uuid
    how = tomb.absent if tomb.state is not TombState.OPEN else "read-only" * tomb.read_only
    return tomb.name, tomb.state.value, tomb.mount_point + (f" ({how})" if how else ""), drive
