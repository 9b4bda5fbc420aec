"""A lease's parts that need no kernel: what is sent to PID 1, what is on record, what is typed."""

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immud.cli import unlock
from immud.early.process import LAUNCHER
from immud.errors import NotAuthorized, UsageError
from immud.lease import begin, end, journal, leftover, record, wire
from immud.log import MessageId

BODY = (
    "x.service",
    "fail",
    [
        ("Description", ("s", "ä lease")),
        ("Delegate", ("b", True)),
        ("Before", ("as", ["a", "bc"])),
        ("TimeoutStopUSec", ("t", 1 << 40)),
        ("ExecStart", ("a(sasb)", [("/bin/sh", ["sh", "-c", ""], False)])),
        ("StandardInputFileDescriptor", ("h", 0)),
    ],
    (),
)
SIGNATURE = "ssa(sv)a(sa(sv))"


def test_the_call_is_what_another_library_would_send() -> None:
    from immud.bus.adapter import Message, MessageFlag, MessageType, Variant  # noqa: PLC0415

    properties = [[name, Variant(kind, as_lists(value))] for name, (kind, value) in BODY[2]]
    theirs = Message(
        path="/org/freedesktop/systemd1",
        interface="org.freedesktop.systemd1.Manager",
        member="StartTransientUnit",
        message_type=MessageType.METHOD_CALL,
        flags=MessageFlag.NONE,
        signature=SIGNATURE,
        body=["x.service", "fail", properties, []],
        serial=1,
    )
    assert wire.message("StartTransientUnit", SIGNATURE, BODY) == bytes(
        theirs._marshall()  # type: ignore[no-untyped-call]
    )


def as_lists(value: object) -> object:
    return [as_lists(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    ("signature", "types"),
    [
        ("ssa(sv)a(sa(sv))", ["s", "s", "a(sv)", "a(sa(sv))"]),
        ("", []),
        ("asaas(ii)t", ["as", "aas", "(ii)", "t"]),
    ],
)
def test_split(signature: str, types: list[str]) -> None:
    assert wire.split(signature) == types


def answering(tmp_path: Path, answer: bytes, at_once: bytes = b"") -> str:
    """A socket at which somebody lets everybody in, saying `at_once` along with it, and answers
    every call with `answer`."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "private"))
    server.listen()

    def serve() -> None:
        with server, server.accept()[0] as peer:
            peer.recv(4096)
            peer.sendall(b"OK 0\r\nAGREE_UNIX_FD\r\n" + at_once)
            peer.recv(65536)
            for at in range(0, len(answer), 7):
                peer.sendall(answer[at : at + 7])

    threading.Thread(target=serve, daemon=True).start()
    return str(tmp_path / "private")


def reply(kind: int, *texts: str, member: str = "X") -> bytes:
    """A signal, an error or a return with `texts` as its body."""
    data = bytearray(wire.message(member, "s" * len(texts), texts))
    data[1] = kind
    return bytes(data)


def removed(unit: str, result: str) -> bytes:
    """PID 1's word on a job that has ended."""
    return reply(4, "/job", unit, result, member="JobRemoved")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply(2, "/job") + removed("x.service", "done"), ""),
        (reply(2, "/job") + removed("x.service", "failed"), "its job"),
        (reply(2, "/job") + removed("y.service", "done"), "closed the connection"),
        (reply(3, "there is such a unit"), "there is such a unit"),
        (reply(2, "")[:9], "closed the connection"),
    ],
)
def test_answers_of_pid_1(tmp_path: Path, answer: bytes, said: str) -> None:
    unasked = reply(4, "a signal") + removed("x.service", "done")
    call = wire.Call(
        "StartTransientUnit", SIGNATURE, BODY, path=answering(tmp_path, unasked + answer)
    )
    if not said:
        call.started("x.service")
        return
    with pytest.raises((wire.Refused, OSError), match=said):
        call.started("x.service")


@pytest.mark.parametrize("cut", [0, 9, 300])
def test_pid_1_that_talks_at_once(tmp_path: Path, cut: int) -> None:
    unasked = reply(4, "a signal") + removed("y.service", "done")
    answer = unasked[cut:] + reply(2, "/job") + removed("x.service", "done")
    path = answering(tmp_path, answer, unasked[:cut])
    wire.Call("StartTransientUnit", SIGNATURE, BODY, path=path).started("x.service")


def test_a_record_comes_back_as_it_was_and_shows_no_command(tmp_path: Path) -> None:
    place = str(tmp_path / "leases")
    lease = record.Record(
        "1f",
        who=1000,
        why="two\nlines, \udcff and ö",
        since=5,
        until=7,
        command=("sh", "-c", "echo 'x'\n", "\udcfe", ""),
        unit="u.service",
        mnt_ns=4026531840,
        trial=True,
        pid=12,
        watcher=14,
    )
    before = os.umask(0o077)
    try:
        record.write(lease, place)
    finally:
        os.umask(before)
    assert record.names(place) == ["1f"]
    assert record.read("1f", place) == lease
    modes = {path.name: path.stat().st_mode & 0o777 for path in Path(place, "1f").iterdir()}
    assert {name for name, mode in modes.items() if mode == 0o600} == {
        *("until", "command", "pid", "watcher", "began")
    }
    assert Path(place, "1f").stat().st_mode & 0o777 == 0o755
    assert Path(place, "1f", "mnt-ns").read_text() == "4026531840\n"
    record.remove("1f", place)
    record.remove("1f", place)
    assert (record.names(place), record.read("1f", place)) == ([], None)
    assert os.listdir(place) == []


def test_ids_differ_and_are_a_unit_name() -> None:
    ids = {record.new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(name.isalnum() and name.isascii() for name in ids)


def test_the_messages_have_the_ids_of_the_catalog() -> None:
    assert (MessageId.LEASE_BEGAN, MessageId.LEASE_ENDED) == (journal.BEGAN, journal.ENDED)


@given(
    st.lists(
        st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), min_size=1
    )
)
def test_a_command_is_shown_as_a_shell_would_take_it(words: list[str]) -> None:
    import shlex  # noqa: PLC0415

    assert shlex.split(journal.shown(tuple(words))) == words


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1d", 86400)]
)
def test_durations(text: str, seconds: int) -> None:
    assert unlock.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "m", "-5", "5x", "1.5h", "9999d", "٣m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError):
        unlock.duration(text)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["--", "a", "--", "b"], (["a", "--", "b"], "", "")),
        (["--for", "5m", "--reason", "--", "--", "a"], (["a"], "5m", "--")),
        (["--reason=x", "--", "a"], None),
        (["a"], None),
        (["--"], None),
        ([], None),
        (["--help"], None),
        (["--for", "--", "a"], None),
    ],
)
def test_plain_arguments_mean_what_the_parser_says_they_mean(
    given: list[str], taken: tuple[list[str], str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from immud.cli.parser import build  # noqa: PLC0415

    ran: list[tuple[list[str], str, str]] = []
    monkeypatch.setattr(
        unlock, "run", lambda command, limit, reason: ran.append((command, limit, reason))
    )
    unlock.plain(given)
    assert ran == ([taken] if taken else [])
    if taken and "--reason" not in given:
        unlock.unlock(build().parse_args(["unlock", *given]))
        assert ran == [taken, taken]


def test_a_time_limit_is_not_dropped_where_there_is_no_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(begin, "locked", tuple)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(begin, "become", lambda program, _: ran.append(program))
    with pytest.raises(UsageError, match="timeout 600 COMMAND"):
        unlock.run(["true"], limit="10m", reason="")
    assert ran == []
    unlock.run(["/bin/true"], limit="", reason="")
    assert ran == ["/bin/true"]


def test_the_service_has_the_time_limit() -> None:
    properties = begin.properties(600, "1f")
    assert ("RuntimeMaxUSec", ("t", 600_000_000)) in properties
    assert LAUNCHER in repr(properties)


def test_who_is_not_root_asks_polkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    became: list[tuple[str, list[str]]] = []

    def execv(program: str, argv: list[str]) -> None:
        became.append((program, argv))
        raise OSError

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(begin, "locked", lambda: ("/usr",))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "pkexec").write_text("")
    (tmp_path / "pkexec").chmod(0o755)
    # Not in this PATH, but maybe in root's.
    with pytest.raises(unlock.NotFound, match="pkexec"):
        unlock.run(["no-such-thing", "--x"], limit="5m", reason="two words")
    argv = ["pkexec", "--keep-cwd", "/usr/bin/immud", "unlock", "--for", "5m", "--reason"]
    assert became == [
        (str(tmp_path / "pkexec"), [*argv, "two words", "--", "no-such-thing", "--x"])
    ]

    def found(name: str) -> str:
        if name == "pkexec":
            raise unlock.NotFound("no")
        return name

    monkeypatch.setattr(unlock, "_find", found)
    with pytest.raises(NotAuthorized, match="try: sudo immud unlock --reason 'a b' -- true"):
        unlock.run(["true"], limit="", reason="a b")


@pytest.mark.parametrize(
    "become",
    [
        "from immud.cli import unlock; unlock._become('/bin/grep', argv)",
        "from immud.lease import wrap; wrap.begin.begin = lambda *_, **__: None\n"
        "sys.argv[1:] = ['lease-for', str(os.getppid()), '/bin/grep', *argv[1:]]; wrap.main()",
    ],
)
def test_the_command_ignores_what_who_asks_does_and_no_more(become: str) -> None:
    script = f"""
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
argv = ['grep', '^SigIgn', '/proc/self/status']
{become}
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    ignored = {s for s in signal.Signals if int(said.stdout.split()[1], 16) >> (s - 1) & 1}
    asked_about = {signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ}
    assert ignored & asked_about == {signal.SIGHUP}


@pytest.mark.parametrize(
    ("login", "environment", "who"),
    [
        ("1001\n", {"SUDO_UID": "5"}, 1001),
        ("4294967295\n", {"SUDO_UID": "5"}, 5),
        ("4294967295\n", {"PKEXEC_UID": "6", "SUDO_UID": "5"}, 6),
        ("4294967295\n", {"SUDO_UID": "x"}, os.getuid()),
        ("4294967295\n", {}, os.getuid()),
    ],
)
def test_who_asks_is_who_logged_in(
    monkeypatch: pytest.MonkeyPatch, login: str, environment: dict[str, str], who: int
) -> None:
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.StringIO(login))
    for name in ("SUDO_UID", "PKEXEC_UID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert begin.who() == who


def test_files_that_changed(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/gone").touch()
    (tmp_path / "old").touch()
    os.utime(tmp_path / "old", (2**31, 2**31))
    time.sleep(0.05)
    since = begin._now()
    (tmp_path / "sub/gone").unlink()
    (tmp_path / "new\nfile").touch()
    now = begin._now()
    until = time.monotonic() + 100
    found, count, complete = end.changed(((since, now),), until, str(tmp_path))
    assert found == sorted(map(str, (tmp_path, tmp_path / "new\nfile", tmp_path / "sub")))
    assert (count, complete) == (3, True)
    # What was there before is in the future of a clock that shows 1970.
    assert end.changed(((5, 60_000_000),), until, str(tmp_path)) == ([], 0, True)
    both = end.changed(((5, 60_000_000), (since, now)), until, str(tmp_path))
    assert both == (found, count, True)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (r"/usr/b\0/usr/a\0/usr/c", "2 files and directories under /usr changed, in the part"),
        ("", "no file under /usr changed, in the part"),
    ],
)
def test_a_search_that_takes_too_long_is_given_up_and_told(
    monkeypatch: pytest.MonkeyPatch, found: str, told: str
) -> None:
    spawn, pids, entries = os.posix_spawn, [], []

    def slow(_program: str, _argv: list[str], *_: object, **actions: Any) -> int:
        argv = ["sh", "-c", f"printf '{found}'; exec sleep 100"]
        pids.append(spawn("/bin/sh", argv, os.environ, **actions))
        return pids[-1]

    monkeypatch.setattr(os, "posix_spawn", slow)
    monkeypatch.setattr(end, "SECONDS", 1.0)
    monkeypatch.setattr(record, "read", lambda _: record.Record("x", since=5))
    monkeypatch.setattr(record, "remove", lambda _: None)
    monkeypatch.setattr(leftover, "kill", lambda *_: [])
    monkeypatch.setattr(journal, "tell", lambda *entry: entries.append(entry))
    began = time.monotonic()
    end.end("x")
    assert time.monotonic() - began < begin.STOP_SECONDS
    ((text, _, fields),) = entries
    assert told in text
    assert fields["IMMUD_COMPLETE"] == "no"
    assert fields["IMMUD_FILES"] == ("/usr/a\n/usr/b" if found else "")
    with suppress(ChildProcessError):
        assert os.WTERMSIG(os.waitpid(pids[0], 0)[1]) == signal.SIGKILL


def test_the_end_of_a_lease_fits_into_its_time() -> None:
    assert leftover.SECONDS < end.SECONDS < begin.STOP_SECONDS


YEARS = 50 * 365 * 86400 * 10**6


@pytest.mark.parametrize(
    ("now", "began", "expected"),
    [
        (1_060, 7, ((1_000, 1_060),)),
        (1_060 + YEARS, 7, ((1_000, 1_060), (1_000 + YEARS, 1_060 + YEARS))),
        (1_060, 0, ((1_000, 1_060),)),
    ],
    ids=["as it was", "set meanwhile", "not known"],
)
def test_a_clock_that_is_set_during_a_lease(
    now: int, began: int, expected: tuple[tuple[int, int], ...]
) -> None:
    assert end.spans(record.Record("x", since=1_000, began=began), now, 67) == expected


def test_a_clock_that_is_set_back() -> None:
    lease = record.Record("x", since=YEARS, began=7)
    assert end.spans(lease, 5_000, 67) == ((YEARS, YEARS + 60), (4_940, 5_000))


def test_a_lease_of_an_older_version_is_read(tmp_path: Path) -> None:
    directory = str(tmp_path / "immud/leases")
    os.mkdir(tmp_path / "immud")
    lease = record.Record("x", since=5, began=7, command=("a",))
    record.write(lease, directory)
    assert record.read("x", directory) == lease
    os.unlink(f"{directory}/x/began")
    assert record.read("x", directory) == record.Record("x", since=5, command=("a",))


def test_unlock_imports_nothing_that_takes_long() -> None:
    # What / and /usr are on this machine does not matter: the imports are those of a lease.
    code = (
        "import os, sys; from immud.cli import main; import immud.lease.namespace\n"
        "os.execv = lambda *_: (print(*sys.modules), sys.stdout.flush(), os._exit(0))\n"
        "from immud.lease import begin; begin.locked = lambda: ()\n"
        "main(['unlock', '--', 'true'])"
    )
    told = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    slow = {"typing", "re", "argparse", "enum", "collections", "socket", "asyncio", "contextlib"}
    assert "immud.lease.wire" in told.stdout.split()
    assert slow & set(told.stdout.split()) == set()
