"""The linters, as tests: style, format and types of the whole tree."""

import subprocess
import sys

import pytest

from tests.support.cache import CHECKOUT, ROOT

LINTERS = {
    "ruff check": ("ruff", "check", "--no-cache", "."),
    "ruff format": ("ruff", "format", "--no-cache", "--check", "--diff", "."),
    "mypy": ("mypy", f"--cache-dir={ROOT / 'mypy'}"),
}


@pytest.mark.limit(300)
@pytest.mark.parametrize("linter", LINTERS)
def test_linter_has_nothing_to_say(linter: str) -> None:
    said = subprocess.run(
        [sys.executable, "-m", *LINTERS[linter]],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
