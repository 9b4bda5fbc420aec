"""The tables of the tripwire: what they accept, and how drop-ins add to each other."""

from pathlib import Path

import pytest

from immud.config.load import examine, load
from immud.model import Tripwire


def write(root: Path, text: str, name: str = "immud.toml") -> None:
    path = root / "etc/immud" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_all_keys(tmp_path: Path) -> None:
    write(
        tmp_path,
        '[tripwire]\ndefault = "relock"\nallow = ["/data"]\n[tripwire.paths]\n"/usr" = "report"\n',
    )
    assert load(str(tmp_path)).tripwire == Tripwire("relock", (("/usr", "report"),), ("/data",))


def test_nothing_said_is_report(tmp_path: Path) -> None:
    assert load(str(tmp_path)).tripwire == Tripwire()


def test_a_drop_in_adds_paths_and_replaces_one(tmp_path: Path) -> None:
    write(tmp_path, '[tripwire.paths]\n"/usr" = "report"\n"/" = "relock"\n')
    write(tmp_path, '[tripwire]\npaths = { "/usr" = "relock" }\n', "immud.toml.d/10.toml")
    assert load(str(tmp_path)).tripwire.paths == (("/usr", "relock"), ("/", "relock"))


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ('[tripwire]\ndefault = "lock"', "tripwire.default", 'one of "report", "relock"'),
        ('[tripwire]\nallow = "/data"', "tripwire.allow", "an array of paths"),
        ('[tripwire]\nallow = ["/usr/x"]', "tripwire.allow", "leave it out"),
        ('[tripwire]\nallow = ["/"]', "tripwire.allow", "leave it out"),
        ('[tripwire]\nallow = ["data"]', "tripwire.allow", "not absolute"),
        ("[tripwire]\npaths = true", "tripwire.paths", "[tripwire.paths]"),
        ('[tripwire.paths]\n"/usr" = "lock"', 'tripwire.paths."/usr"', 'one of "report", "relock"'),
        ('[tripwire.paths]\nusr = "report"', "tripwire.paths.usr", "not absolute"),
        ('[tripwire]\npolicy = "report"', "tripwire.policy", "unknown key"),
        ('tripwire = "report"', "tripwire", "[tripwire]"),
    ],
)
def test_mistakes_name_their_key(tmp_path: Path, text: str, key: str, said: str) -> None:
    write(tmp_path, text + "\n")
    (error,) = examine(str(tmp_path))[1]
    assert error.key == key
    assert error.line
    assert said in str(error)
