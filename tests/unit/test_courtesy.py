"""Standing back while importing, and going first for a person: in the session, of the session, and
not a moment longer.
"""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from immud.courtesy import HASTE, NICE, background, haste, waiting
from immud.tomb.fs import check as checking
from immud.tomb.fs.filesystems import FILE_SYSTEMS
from tests.support.namespaces import forked


def niceness() -> tuple[int, int]:
    """Of the process, and of its session where the kernel has autogroups."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    group = Path("/proc/self/autogroup")
    return own, int(group.read_text().split()[-1]) if group.exists() else own


def as_a_service() -> None:
    """In a session of its own, and no nicer than others, whoever runs the tests."""
    os.setsid()
    os.setpriority(os.PRIO_PROCESS, 0, 0)


def test_it_is_nice_inside_and_as_before_outside() -> None:
    def check() -> None:
        as_a_service()
        with background():
            assert niceness() == (NICE, NICE)
        assert niceness() == (0, 0)
        with pytest.raises(KeyError), background():
            raise KeyError
        assert niceness() == (0, 0)

    forked(check)


def test_it_is_in_haste_until_the_last_of_them_is_done() -> None:
    def check() -> None:
        as_a_service()
        first, second = haste(), haste()
        with first:
            second.__enter__()
            assert niceness() == (HASTE, HASTE)
        assert niceness() == (HASTE, HASTE)
        second.__exit__(None, None, None)
        assert niceness() == (0, 0)
        os.setpriority(os.PRIO_PROCESS, 0, 5)
        with pytest.raises(KeyError), haste():
            raise KeyError
        assert niceness() == (5, 5)

    forked(check)


def test_it_is_in_no_haste_while_it_waits() -> None:
    def check() -> None:
        as_a_service()
        os.setpriority(os.PRIO_PROCESS, 0, 5)
        with waiting():
            assert niceness()[0] == 5, "there was no haste"
        with haste():
            with waiting():
                assert niceness() == (5, 5)
            assert niceness() == (HASTE, HASTE)
        assert niceness() == (5, 5)

    forked(check)


def test_a_checker_is_in_no_haste(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checker, said = tmp_path / "fsck", tmp_path / "nice"
    checker.write_text(f"#!/bin/sh\nnice >{said}\n")
    checker.chmod(0o755)
    monkeypatch.setitem(FILE_SYSTEMS, "ext4", replace(FILE_SYSTEMS["ext4"], checker=str(checker)))

    async def run() -> None:
        with haste():
            assert await checking.check("ext4", "/dev/null", lambda _: None) == ""
            assert niceness()[0] == HASTE

    def check() -> None:
        as_a_service()
        asyncio.run(run())

    forked(check)
    assert said.read_text() == "0\n"
