"""The facts of a boot survive being written and read; phase 1 imports nothing heavy."""

import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from immud.early import facts
from immud.early.facts import Facts

# What phase 1 may have loaded at READY=1 beyond what the interpreter has at start-up
# (python3 -I -S -E): os, and of ctypes what is written in C.
ALLOWED = {
    "os", "os.path", "posixpath", "genericpath", "stat", "_stat", "_collections_abc", "errno",
    "_ctypes", "_socket", "zlib", "time",
}  # fmt: skip

text = st.text(st.characters(blacklist_categories=["Cs"]))


@given(st.lists(st.tuples(text, text, text, st.lists(st.tuples(text, text)).map(tuple))))
def test_problems_come_back_as_they_were(problems: list[tuple[str, str, str, object]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/facts"
        facts.write(Facts(layout="done", problems=tuple(problems)), path)  # type: ignore[arg-type]
        found = facts.read(path)
    assert found is not None
    assert found.problems == tuple(problems)


def test_all_fields_come_back(tmp_path: Path) -> None:
    made = Facts(
        layout="partial",
        plan="compiled",
        mounts=(("/usr", 12, "ro", "/usr"),),
        links=(("/home", "var/home", "adopted", "link"),),
        times=(("Phase1Done", 5),),
    )
    path = str(tmp_path / "facts")
    facts.write(made, path)
    found = facts.read(path)
    assert found is not None
    assert {n: getattr(found, n) for n in Facts.__slots__} == {
        n: getattr(made, n) for n in Facts.__slots__
    }


def test_no_facts_is_not_an_error(tmp_path: Path) -> None:
    assert facts.read(str(tmp_path / "none")) is None


def test_phase_1_imports_os_sys_ctypes_and_nothing_heavy() -> None:
    top = Path(__file__).parents[2]
    code = (
        "import sys; before = set(sys.modules); sys.path.append(sys.argv[1])\n"
        "import immud.early.main, immud.early.namespaces\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    told = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-E", "-c", code, str(top)],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    loaded = {name for name in told.stdout.split() if not name.startswith("immud")}
    assert loaded <= ALLOWED, loaded - ALLOWED
    assert sys.version_info >= (3, 11)
