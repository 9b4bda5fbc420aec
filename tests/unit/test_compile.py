"""Compiling, and the plan on the disk: always the old one or the new one."""

import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immud.config import compile as module
from immud.config.compile import compile_now, compile_plan, remove_plan, write_plan
from immud.config.layout import SILVERBLUE
from immud.config.load import load
from immud.early.plan import BootPlan, decode, encode
from immud.errors import ConfigError

OLD = BootPlan(wait=1, configs=(("/etc/immud/immud.toml", b"x" * 10_000),))
NEW = BootPlan(wait=2, rows=SILVERBLUE)


def plan_file(root: Path) -> Path:
    return root / "etc/immud/boot.plan"


def test_a_plan_carries_everything_boot_needs(tmp_path: Path) -> None:
    directory = tmp_path / "etc/immud"
    directory.mkdir(parents=True)
    text = b'usr.source = "/u"\nroot.readonly = false\nboot.wait = 3\n[links]\n"/opt" = false\n'
    (directory / "immud.toml").write_bytes(text)
    assert compile_now(str(tmp_path)) == BootPlan(
        usr="/u",
        rows=tuple(row for row in SILVERBLUE if row.path != "/opt"),
        root=False,
        wait=3,
        configs=(("/etc/immud/immud.toml", text),),
    )


def test_a_plan_knows_the_places_of_tombs_and_of_their_binds(tmp_path: Path) -> None:
    (tmp_path / "etc/immud").mkdir(parents=True)
    (tmp_path / "etc/immud/immud.toml").write_text(
        '[tomb.home]\nlabel = "a"\n'
        '[tomb.own]\nlabel = "b"\nmount = "/var/own"\nbinds = { papers = "/var/lib/papers" }\n'
    )
    plan = compile_now(str(tmp_path))
    assert plan.logins
    assert plan.tombs == ("/var/home", "/var/own", "/var/lib/papers")


def test_a_wrong_configuration_is_not_compiled(tmp_path: Path) -> None:
    (tmp_path / "etc/immud").mkdir(parents=True)
    (tmp_path / "etc/immud/immud.toml").write_text("x = 1")
    with pytest.raises(ConfigError):
        compile_now(str(tmp_path))


@given(
    st.booleans(),
    st.integers(0, 600),
    st.dictionaries(
        st.sampled_from(("/home", "/opt", "/data", "/usr/local", "/usr/src", "/x y")),
        st.one_of(
            st.just("false"),
            st.builds(
                "{{ target = '/var/{}', kind = '{}', mode = '{:o}' }}".format,
                st.text("abc", min_size=5, max_size=6),
                st.sampled_from(("link", "bind")),
                st.integers(0o700, 0o777),
            ),
        ),
    ),
)
def test_what_is_configured_is_what_is_in_the_file(
    readonly: bool, wait: int, links: dict[str, str]
) -> None:
    """From TOML to the bytes of the plan and back, nothing is lost, and all leads below /var."""
    targets = [text.split("'")[1] for text in links.values() if text != "false"]
    with tempfile.TemporaryDirectory() as root:
        directory = Path(root, "etc/immud")
        directory.mkdir(parents=True)
        lines = [f"root.readonly = {str(readonly).lower()}\nboot.wait = {wait}\n[links]\n"]
        lines += [f'"{path}" = {value}\n' for path, value in links.items()]
        (directory / "immud.toml").write_text("".join(lines))
        if len(set(targets)) < len(targets):
            with pytest.raises(ConfigError, match="a directory of its own"):
                load(root)
            return
        plan = decode(encode(compile_plan(load(root))))
    rows = {row.path: row for row in plan.rows}
    assert (plan.root, plan.wait) == (readonly, wait)
    for path, value in links.items():
        if value == "false":
            assert path not in rows
        else:
            _, target, _, kind, _, mode, _ = value.split("'")
            row = rows[path]
            assert (row.directory, row.kind, row.mode) == (target, kind, int(mode, 8))
    builtin = {row.path for row in SILVERBLUE}
    assert builtin - rows.keys() == {path for path, value in links.items() if value == "false"} & (
        builtin
    )


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    assert write_plan(NEW, str(tmp_path))
    before = plan_file(tmp_path).stat()
    assert not write_plan(NEW, str(tmp_path))
    after = plan_file(tmp_path).stat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert write_plan(OLD, str(tmp_path))
    assert decode(plan_file(tmp_path).read_bytes()) == OLD


def test_the_plan_is_readable_by_all_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_plan(NEW, str(tmp_path))
    finally:
        os.umask(before)
    assert plan_file(tmp_path).stat().st_mode & 0o777 == 0o644


def test_a_link_in_the_plans_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    plan_file(tmp_path).parent.mkdir(parents=True)
    other = tmp_path / "other"
    other.write_bytes(encode(NEW))
    for name in ("boot.plan", "boot.plan.new"):
        (plan_file(tmp_path).parent / name).symlink_to(other)
    assert write_plan(NEW, str(tmp_path))
    assert not plan_file(tmp_path).is_symlink()
    other.unlink()
    assert decode(plan_file(tmp_path).read_bytes()) == NEW


def _write_and_die(root: str, line: int) -> None:
    """In a child: be killed just before the `line`th line of the writing."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename != module.__file__:
            return None
        if event == "line":
            count += 1
            if count == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    write_plan(NEW, root)
    sys.settrace(None)
    os._exit(0)


@pytest.mark.parametrize("had_one", [True, False])
def test_killed_between_any_two_lines_the_plan_is_the_old_or_the_new(
    tmp_path: Path, had_one: bool
) -> None:
    seen = set()
    for line in range(1, 200):
        root = tmp_path / str(line)
        if had_one:
            write_plan(OLD, str(root))
        pid = os.fork()
        if pid == 0:
            try:
                _write_and_die(str(root), line)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, -signal.SIGKILL)
        file = plan_file(root)
        found = decode(file.read_bytes()) if file.exists() else None
        assert found in ((OLD if had_one else None), NEW)
        seen.add(found == NEW)
        # And the next writer is neither stopped nor misled by what was left behind.
        write_plan(NEW, str(root))
        assert decode(file.read_bytes()) == NEW
        assert [entry.name for entry in file.parent.iterdir()] == ["boot.plan"]
        if code == 0:
            break
    else:
        pytest.fail("the writing never came to its end")
    assert seen == {True, False}


def test_the_content_is_on_the_disk_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order a power cut makes visible: flush the file, rename it, flush the directory."""
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def spy_fsync(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}").removeprefix(str(tmp_path))
        calls.append(
            f"fsync {path} {os.fstat(fd).st_size if path.endswith('.new') else ''}".strip()
        )
        fsync(fd)

    def spy_rename(old: str, new: str, **fds: int) -> None:
        calls.append(f"rename {old} {new}")
        rename(old, new, **fds)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "rename", spy_rename)
    write_plan(NEW, str(tmp_path))
    assert calls == [
        f"fsync /etc/immud/boot.plan.new {len(encode(NEW))}",
        "rename boot.plan.new boot.plan",
        "fsync /etc/immud",
    ]


def test_removing_takes_what_an_interrupted_write_left(tmp_path: Path) -> None:
    assert not remove_plan(str(tmp_path))
    write_plan(NEW, str(tmp_path))
    (tmp_path / "etc/immud/boot.plan.new").write_bytes(b"half")
    assert remove_plan(str(tmp_path))
    assert list((tmp_path / "etc/immud").iterdir()) == []
