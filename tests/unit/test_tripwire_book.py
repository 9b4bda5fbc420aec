"""Findings over time: numbers, times, what is new and what is mended, and a restart."""

import asyncio
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from immud import log
from immud.model import Breach, Finding, JobView, Tripwire
from immud.tripwire.book import Book, sentence
from immud.tripwire.relock import LIMIT, WITHIN, Relock
from immud.tripwire.rule import Broken

USR = Broken(Breach.WRITABLE, "/usr", "read-only", "writable")
DATA = Broken(Breach.NEW_MOUNT, "/a\tb\\c", "no writable mount", "tmpfs (0:40 /), writable")
INSIDE = Broken(Breach.WRITABLE, "/usr", "read-only", "writable", 4026532436)


def numbers(findings: list[Finding]) -> list[int]:
    return [finding.id for finding in findings]


def update(book: Book, *broken: Broken, now: int = 5) -> tuple[list[int], list[int]]:
    raised, cleared = book.update(broken, realtime=now, monotonic=now + 1)
    return numbers(raised), numbers(cleared)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "immud" / "findings")


def test_raised_once_and_cleared_once(path: str) -> None:
    book = Book(path)
    assert update(book, USR) == ([1], [])
    assert update(book, USR, now=9) == ([], [])
    assert (book.findings[1].since, book.findings[1].since_monotonic) == (5, 6)
    assert update(book) == ([], [1])
    assert not book.findings
    # A number is not used again: who asks late about 1 is not told of another.
    assert update(book, USR) == ([2], [])


def test_the_same_path_in_two_namespaces_is_two_findings(path: str) -> None:
    book = Book(path)
    assert update(book, USR, INSIDE) == ([1, 2], [])
    assert book.findings[2].text.endswith("in mount namespace 4026532436")
    assert update(book, INSIDE) == ([], [1])


def test_what_one_look_does_not_see_it_does_not_clear(path: str) -> None:
    book = Book(path)
    update(book, USR, INSIDE)
    _, cleared = book.update(
        (), realtime=1, monotonic=1, about=lambda finding: bool(finding.namespace)
    )
    assert numbers(cleared) == [2]
    assert list(book.findings) == [1]


def test_another_actual_state_of_the_same_breach_is_told_but_is_no_new_finding(path: str) -> None:
    book = Book(path)
    update(book, DATA)
    other = DATA._replace(actual="ext4 from /dev/sdb1 (8:17 /), writable")
    assert update(book, other) == ([], [])
    assert "/dev/sdb1" in book.findings[1].actual
    assert "/dev/sdb1" in book.findings[1].text


def test_a_restart_knows_since_when_and_counts_on(path: str) -> None:
    book = Book(path)
    update(book, USR, DATA, INSIDE)
    update(book, DATA, INSIDE)
    again = Book(path)
    assert again.findings == book.findings
    assert update(again, DATA, INSIDE, now=99) == ([], [])
    assert update(again, DATA, INSIDE, USR) == ([4], [])


@pytest.mark.parametrize(
    "content", ["", "garbage\n", "last\tx\n", "1\twritable\n", "last\t3\n1\t2"]
)
def test_a_torn_copy_is_no_copy(path: str, content: str) -> None:
    Path(path).parent.mkdir()
    Path(path).write_text(content)
    book = Book(path)
    assert not book.findings
    assert len(update(book, USR)[0]) == 1


def test_every_kind_is_a_sentence() -> None:
    for kind in Breach:
        text = sentence(Broken(kind, "/x", "file system 8:1 rw", "file system 8:1 ro"))
        assert "/x" in text
        assert "{" not in text


def test_the_policy_of_the_longest_path_counts() -> None:
    policy = Tripwire("report", (("/", "relock"), ("/usr", "report"), ("/usr/lib", "relock")))
    assert policy.policy("/usr/lib/x") == "relock"
    assert policy.policy("/usr/libexec") == policy.policy("/usr") == "report"
    assert policy.policy("/etc") == "relock"
    assert Tripwire().policy("/usr") == "report"
    assert Tripwire("relock").policy("/usr") == "relock"


def test_two_programs_do_not_fight_for_ever() -> None:
    now = 0.0
    relock = Relock(
        Tripwire, reconcile=AsyncMock(), look=bool, stands=lambda _: True, clock=lambda: now
    )
    assert [relock.allowed("/usr") for _ in range(LIMIT + 2)] == [True] * LIMIT + [False] * 2
    assert relock.allowed("/")
    now = WITHIN - 1
    assert not relock.allowed("/usr")
    now = WITHIN + 1
    assert relock.allowed("/usr")


@pytest.mark.parametrize("stays", [True, False])
async def test_put_back_is_what_is_said_of_what_was_put_back(
    stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(
        log.sink, "write", lambda _, message, fields: said.append((message, fields))
    )
    done = asyncio.Event()

    async def reconcile() -> JobView:
        await done.wait()
        return JobView(1, "reconcile", "/", error="it is not so")

    relock = Relock(
        lambda: Tripwire("relock"), reconcile=reconcile, look=bool, stands=lambda _: stays
    )
    link = Finding(1, Breach.LINK, "/home", "a link to var/home", "a file", "", 0, 1, 1)
    relock.consider(link)
    await asyncio.sleep(0)
    assert said == []
    done.set()
    while not said:
        await asyncio.sleep(0)
    ((message, fields),) = said
    if stays:
        assert message == "/home cannot be restored automatically; see: immud verify"
        assert fields["IMMUD_REASON"] == "it is not so"
    else:
        assert message == "/home was restored (policy: relock)."
    assert ("MESSAGE_ID" in fields) == (not stays)
