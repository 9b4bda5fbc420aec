"""What `immud verify` prints and writes; asking the daemon is tested on a bus."""

import re
from pathlib import Path
from typing import Any

import pytest

from immud.cli import verify
from immud.cli.render import Style

FINDING: dict[str, Any] = {
    "Id": 1,
    "Kind": "writable",
    "Path": "/usr",
    "Expected": "read-only",
    "Actual": "writable",
    "Text": "/usr has become writable",
    "Namespace": 0,
    "Since": 1_700_000_000_000_000,
    "SinceMonotonic": 5,
    "By": "",
    "Pid": 0,
    "Command": "",
    "Unit": "",
}
STYLE = Style()


def test_a_good_day_is_one_line() -> None:
    assert list(verify.lines("intact", [], STYLE)) == ["Everything is as this boot left it."]


def test_a_boot_without_a_layout_is_not_called_intact() -> None:
    (line,) = verify.lines("unknown", [], STYLE)
    assert "no layout" in line


@pytest.mark.parametrize(
    ("by", "command", "unit", "line"),
    [
        ("author", "mount", "x.service", "  by        mount (pid 7) of x.service"),
        ("author", "", "", "  by        a process that has ended (pid 7)"),
        ("inside", "sh\x1b", "", "  seen by   sh\\033 (pid 7)"),
    ],
)
def test_a_finding_names_who_where_it_is_known(by: str, command: str, unit: str, line: str) -> None:
    finding = FINDING | {"By": by, "Pid": 7, "Command": command, "Unit": unit}
    told = list(verify.lines("violated", [finding], STYLE))
    assert told[0] == "/usr has become writable."
    assert told[-1] == line
    assert not any("by " in each for each in verify.lines("violated", [FINDING], STYLE))


def test_openmetrics() -> None:
    strange = FINDING | {"Kind": "new-mount", "Path": '/a"b\\c\nd\udcff'}
    text = verify.metrics("violated", [FINDING, FINDING, strange], 1.5)
    assert text.endswith("# EOF\n")
    assert 'immud_findings{kind="writable",path="/usr"} 2\n' in text
    assert 'immud_findings{kind="new-mount",path="/a\\"b\\\\c\\nd\\\\udcff"} 1\n' in text
    assert "immud_intact 0\n" in text
    assert "immud_up 1\n" in text
    # Every line is a comment or one sample of the family above it: nothing a name breaks.
    family = ""
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            family = line.split()[2]
        elif not line.startswith("#"):
            assert re.fullmatch(rf"{family}(\{{.*\}})? [0-9.]+", line), line


def test_no_daemon_is_no_good_day() -> None:
    text = verify.metrics(None, None, 1.5)
    assert "immud_up 0\n" in text
    assert "immud_intact" not in text
    assert "immud_findings" not in text
    assert "immud_intact" not in verify.metrics("unknown", [], 1.5)


def test_the_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "immud.prom"
    path.write_text("old")
    held = path.open()
    verify._replace(str(path), "new")
    assert held.read() == "old"
    held.close()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError):  # noqa: PT011 - whichever says that there is no directory
        verify._replace(str(tmp_path / "no" / "x"), "new")
