"""Where tombs and their binds may go, whatever the paths look like."""

import posixpath

from hypothesis import given
from hypothesis import strategies as st

from immud.config import claims, rules
from immud.config.layout import SILVERBLUE
from immud.config.rules import Wrong, within
from immud.model import TombConfig

NAMES = st.sampled_from(["", ".", "..", "a", "b", "var", "etc", "home", "lib", "dpkg", "shadow"])
PATHS = st.lists(NAMES, max_size=5).map("/".join)
PARTS = st.sampled_from(
    ["/var", "/etc", "/a", "/b", "/home", "/homely", "/lib", "/dpkg", "/shadow", "/.."]
)
TARGETS = st.builds("".join, st.lists(PARTS, min_size=1, max_size=4))
SOURCES = {"usr": "/usr", "etc": "/var/a/etc", "var": "/var"}


@given(PATHS | st.text(max_size=12))
def test_what_is_accepted_stays_inside_the_tomb(path: str) -> None:
    try:
        rules.binds({path: "/var/games"})
    except Wrong:
        return
    inside = posixpath.normpath(f"/tomb/{path}")
    assert inside == f"/tomb/{path}" != "/tomb"


@given(st.lists(TARGETS, min_size=1, max_size=3))
def test_what_is_accepted_is_nobody_else_s(targets: list[str]) -> None:
    try:
        binds = rules.binds({f"x{number}": target for number, target in enumerate(targets)})
    except Wrong:
        return
    tombs = (TombConfig("home"), TombConfig("b", mount="/var/b", binds=binds))
    if list(claims.of_binds(tombs, SILVERBLUE, SOURCES)):
        return
    for target in targets:
        # In every part of it, and not as a beginning of a longer name.
        for claimed in ("/var/home", "/var/b", "/var/a/etc", "/etc/shadow", "/var/lib/dpkg"):
            assert not within(target, claimed)
            assert not within(claimed, target)
        assert target.startswith(("/var/", "/etc/"))
        assert sum(within(other, target) for other in targets) == 1


def test_of_tombs_inside_tombs() -> None:
    tombs = (
        TombConfig("home"),
        TombConfig("alice", mount="/var/home/alice"),
        TombConfig("homely", mount="/var/homely", absent="volatile"),
        TombConfig("bob", mount="/var/home/bob", absent="volatile"),
    )
    settled, wrongs = claims.nested(tombs)
    assert [tomb.absent for tomb in settled] == ["", "directory", "volatile", "directory"]
    assert [key for key, _ in wrongs] == [("tomb", "bob", "absent")]
