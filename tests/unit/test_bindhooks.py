"""What a tomb says of itself: pairs of paths that lead nowhere else, and nothing more."""

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immud.tomb.dyne.bindhooks import LINES_MAX, parse


def test_dyne_s_own_example() -> None:
    lines = (
        "mail     mail",
        ".gnupg\t.gnupg",
        ".fmrc  .fetchmailrc",
        "",
        ".mozilla/ .mozilla/",
        "",
    )
    pairs, wrong = parse("\n".join(lines).encode())
    assert pairs == (
        ("mail", "mail"),
        (".gnupg", ".gnupg"),
        (".fmrc", ".fetchmailrc"),
        (".mozilla", ".mozilla"),
    )
    assert wrong == ()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"mail ../bob/mail", "no '.' or '..'"),
        (b"mail .ssh/../../bob", "no '.' or '..'"),
        (b"../secret mail", "no '.' or '..'"),
        (b"/etc mail", "no slash first or last"),
        (b"mail /etc", "no slash first or last"),
        (b"mail//x mail", "single slashes"),
        (b"mail", "1 words"),
        (b"a b c", "3 words"),
        (b"m\x1bail mail", "cannot be printed"),
        (b"m\x00ail mail", "not a path inside a tomb"),
        (b"m\xffail mail", "utf-8"),
    ],
)
def test_what_could_lead_elsewhere_is_left_out(line: bytes, why: str) -> None:
    pairs, (text,) = parse(b"docs docs\n" + line + b"\nmusic music\n")
    assert pairs == (("docs", "docs"), ("music", "music"))
    assert text.startswith("bind-hooks, line 2 is left out: ")
    assert why in text


def test_one_place_for_one_directory() -> None:
    pairs, wrong = parse(b"a x\nb x\nc x/y\nd y\n")
    assert pairs == (("a", "x"), ("d", "y"))
    assert len(wrong) == 2


def test_no_end_of_lines() -> None:
    pairs, wrong = parse(b"".join(b"a%d b%d\n" % (n, n) for n in range(LINES_MAX + 5)))
    assert len(pairs) == LINES_MAX
    assert "more than" in wrong[0]


@given(st.binary(max_size=200) | st.text("ab/. \n#\t\x85\u2028", max_size=60).map(str.encode))
def test_whatever_it_says_the_pairs_stay_inside(data: bytes) -> None:
    pairs, _ = parse(data)
    for path in (path for pair in pairs for path in pair):
        assert path.isprintable()
        assert posixpath.normpath(posixpath.join("/inside", path)) == f"/inside/{path}"
        assert path != "."
    targets = [target for _, target in pairs]
    assert len(set(targets)) == len(targets)
