"""What a person sees, to the letter: in 80 columns, with and without colour."""

import io
import os
import re

import pytest

from immud.cli.render import Snapshot, Style, status_lines, table, visible
from immud.cli.tomb import waiting
from immud.model import LinkFact, ManagerState, MountFact, Problem, Severity, TombState, TombView

SNAPSHOT = Snapshot(
    version="0.1.0",
    state=ManagerState.DEGRADED,
    usr_read_only=True,
    root_read_only=False,
    home_tomb="home",
    problems=(
        Problem(
            Severity.ERROR,
            "root-busy",
            "/ stays writable because rsyslogd (612) has /var.log open for writing through it; "
            "it is tried again when that ends",
        ),
        Problem(Severity.NOTICE, "unadopted", "/opt is a directory; run immud adopt /opt"),
    ),
    mounts=(
        MountFact("/usr", "/usr", "ext4", "ro,relatime", True, "mounted"),
        MountFact("/", "/dev/sda2", "ext4", "rw,relatime", False, "writable"),
        MountFact("/var", "/very/long/path" * 6, "", "", False, "missing"),
    ),
    links=(
        LinkFact("/home", "var/home", "adopted", "link"),
        LinkFact("/opt", "var/opt", "unadopted", "link"),
    ),
    tombs=(
        TombView("home", TombState.OPEN, device="/dev/sdb1", mount_point="/var/home"),
        TombView("work", TombState.ABSENT, label="Work", mount_point="/var/work"),
    ),
)

GOLDEN = """\
immud 0.1.0: degraded, /usr is read-only, / is writable, home is tomb home

Problems
error:   / stays writable because rsyslogd (612) has /var.log open for writing
         through it; it is tried again when that ends
notice:  /opt is a directory; run immud adopt /opt

Mounts
  PATH  STATE     ACCESS     FROM
  /usr  mounted   read-only  /usr (ext4)
  /     writable  writable   /dev/sda2 (ext4)
  /var  missing              /very/long/path/very/long/path/very/long/path/ve...

Links
  PATH   STATE      LEADS TO
  /home  adopted    var/home
  /opt   unadopted  var/opt

Tombs
  NAME  STATE   AT         DRIVE
  home  open    /var/home  /dev/sdb1
  work  absent  /var/work  Work
"""


def text(snapshot: Snapshot, style: Style) -> str:
    return "".join(line + "\n" for line in status_lines(snapshot, style))


def test_the_whole_status_in_80_columns() -> None:
    assert text(SNAPSHOT, Style()) == GOLDEN
    assert max(map(len, GOLDEN.split("\n"))) <= 80


def test_colour_only_adds_to_the_words() -> None:
    coloured = text(SNAPSHOT, Style(colour=True))
    stripped = re.sub(r"\x1b\[\d+m", "", coloured)
    assert re.sub(r" +\n", "\n", stripped) == GOLDEN
    assert "\x1b[31mdegraded\x1b[0m" in coloured
    assert "\x1b[31merror:   \x1b[0m/ stays" in coloured
    assert "/usr  \x1b[32mmounted \x1b[0m  read-only" in coloured
    assert "\x1b[33munadopted\x1b[0m" in coloured
    assert "\x1b[1mTombs\x1b[0m" in coloured


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_nothing_is_wider_than_the_page(width: int) -> None:
    lines = text(SNAPSHOT, Style(width)).split("\n")
    assert max(map(len, lines[1:])) <= width


@pytest.mark.parametrize(
    ("state", "usr", "root", "home", "summary"),
    [
        (ManagerState.RUNNING, True, True, "", "running, /usr and / are read-only"),
        (ManagerState.RUNNING, True, False, "", "running, /usr is read-only, / is writable"),
        (ManagerState.DEGRADED, False, False, "", "degraded, /usr and / are writable"),
        (
            ManagerState.OFF,
            False,
            False,
            "",
            "off, this boot was asked to leave the layout alone (immud=off)",
        ),
    ],
)
def test_the_first_line(
    state: ManagerState, usr: bool, root: bool, home: str, summary: str
) -> None:
    snapshot = Snapshot("1", state, usr, root, home)
    assert text(snapshot, Style()) == f"immud 1: {summary}\n"


def test_names_from_the_disk_do_not_reach_the_terminal_raw() -> None:
    assert visible("a\x1b[31m\nb\x9b") == "a\\033[31m\\012b\\233"
    rows = [("/x\x1b]0;y\x07", "open")]
    assert "\x1b" not in "".join(table(("PATH", "STATE"), rows, Style()))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError


def test_colour_needs_a_terminal_and_no_objection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"TERM": "xterm"})
    assert Style.of(Terminal()).colour
    assert not Style.of(io.StringIO()).colour
    monkeypatch.setattr(os, "environ", {"TERM": "xterm", "NO_COLOR": "1"})
    assert not Style.of(Terminal()).colour
    monkeypatch.setattr(os, "environ", {"TERM": "dumb"})
    assert not Style.of(Terminal()).colour


def test_for_whom_a_tomb_waits() -> None:
    waits = ["warning", "tomb-waits", "In the way: bash.", {"tomb": "home"}]
    other = ["warning", "tomb-waits", "In the way: vi.", {"tomb": "work"}]
    assert waiting("home", [["notice", "x", "y", {}], other, waits]) == "In the way: bash."
    assert waiting("home", [other]) == ""
