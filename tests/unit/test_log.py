"""Log lines reach the journal's socket as sd-journal would send them, or stderr."""

import array
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from immud import log
from immud.log import Level, MessageId, Sink, Target


def decode(datagram: bytes) -> dict[str, str]:
    """The receiving half of the native protocol, as systemd.journal-fields(7) has it."""
    fields = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[9 + size :]
        fields[name.decode()] = value.decode()
        datagram = rest
    return fields


class Journal:
    def __init__(self, path: str) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(2)

    def receive(self) -> dict[str, str]:
        data, ancillary, _, _ = self.socket.recvmsg(1 << 20, 64)
        for _, _, rights in ancillary:
            (fd,) = array.array("i", rights)
            data = os.pread(fd, os.fstat(fd).st_size, 0)
            os.close(fd)
        return decode(data)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    journal = Journal(str(tmp_path / "socket"))
    monkeypatch.setattr(log, "sink", Sink(journal.path))
    yield journal
    journal.socket.close()


def test_fields_and_priority(journal: Journal) -> None:
    log.get(tomb="home").warning("The drive is gone.", errno=5, message_id=MessageId.TOMB_LOST)
    fields = journal.receive()
    assert fields["MESSAGE"] == "The drive is gone."
    assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"]) == ("4", "immud")
    assert (fields["ERRNO"], fields["IMMUD_TOMB"]) == ("5", "home")
    assert fields["MESSAGE_ID"] == MessageId.TOMB_LOST


def test_lines_within_a_value_forge_no_field(journal: Journal) -> None:
    log.get().info("one\nPRIORITY=0\ntwo", label="x\nMESSAGE_ID=0")
    fields = journal.receive()
    assert fields["MESSAGE"] == "one\nPRIORITY=0\ntwo"
    assert (fields["PRIORITY"], fields["IMMUD_LABEL"]) == ("6", "x\nMESSAGE_ID=0")
    assert "MESSAGE_ID" not in fields


def test_bytes_that_are_no_text_are_kept_readable(journal: Journal) -> None:
    log.get().info("file", path=os.fsdecode(b"/a\xff"))
    assert journal.receive()["IMMUD_PATH"] == "/a\\udcff"


def test_the_level_changes_at_run_time(journal: Journal) -> None:
    logger = log.get()
    logger.debug("unheard")
    log.sink.level = Level.DEBUG
    logger.debug("heard")
    assert journal.receive()["MESSAGE"] == "heard"
    log.sink.level = Level.ERR
    logger.warning("unheard")
    logger.error("heard again")
    assert journal.receive()["MESSAGE"] == "heard again"


def test_what_is_too_long_for_a_datagram_arrives_all_the_same(journal: Journal) -> None:
    log.get().info("x" * 1_000_000)
    assert journal.receive()["MESSAGE"] == "x" * 1_000_000


def test_a_defect_carries_its_traceback(journal: Journal) -> None:
    try:
        raise KeyError("uuid")
    except KeyError as error:
        log.loop_exception_handler(None, {"message": "defect in job 1", "exception": error})
    fields = journal.receive()
    assert fields["MESSAGE"].startswith("defect in job 1\nTraceback")
    assert "KeyError: 'uuid'" in fields["MESSAGE"]
    assert fields["MESSAGE_ID"] == MessageId.DEFECT


def test_a_journal_that_does_not_read_stops_nobody(journal: Journal) -> None:
    for number in range(2000):
        log.get().info("line", number=number)
    count = 0
    journal.socket.settimeout(0)
    try:
        while True:
            journal.receive()
            count += 1
    except BlockingIOError:
        pass
    log.get().info("after")
    assert journal.receive()["IMMUD_DROPPED"] == str(2000 - count)


def test_without_a_journal_standard_error(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "sink", Sink(str(tmp_path / "absent")))
    log.get().notice("two\nlines")
    assert capfd.readouterr().err == "<5>two\n<5>lines\n"


def test_the_console_target(journal: Journal, capfd: pytest.CaptureFixture[str]) -> None:
    log.sink.target = Target.CONSOLE
    log.get().info("here")
    assert capfd.readouterr().err == "<6>here\n"


def test_message_ids_are_ids_and_differ() -> None:
    assert all(len(bytes.fromhex(identifier)) == 16 for identifier in MessageId)
    assert len(set(MessageId)) == len(MessageId)
