"""Sentences with fields, to the journal's own socket.

`journalctl -u immud -o verbose` shows the fields, `journalctl MESSAGE_ID=...` finds
one kind of event. Where no journal listens, the same lines go to standard error
with the `<N>` prefix of sd-daemon(3).
"""

import errno
import fcntl
import os
import socket
import sys
import traceback
from enum import IntEnum, StrEnum
from typing import Any

from immud import lean

# Of the library only its bound logger is used; the rest would bring its printing and testing.
lean.bare("structlog")
from structlog._base import BoundLoggerBase  # noqa: E402
from structlog.typing import EventDict  # noqa: E402

JOURNAL = "/run/systemd/journal/socket"
IDENTIFIER = "immud"


class MessageId(StrEnum):
    """Every MESSAGE_ID there is; a meaning once given stays (see sd_journal_print(3))."""

    PROBLEM = "c96abf705bfe4d839802d2f8fb3f6550"  # a problem appeared in Manager.Problems
    TOMB_OPENED = "5b20bdfa5d1c4ae0bc5e3ea4d73e2a72"  # a tomb was opened
    TOMB_CLOSED = "fa2d1f19f4a7449db5c08ea5a07c79f1"  # a tomb was closed
    TOMB_LOST = "058b7c49c9ee4694a64dfaee7979f5c1"  # a drive was pulled while its tomb was open
    TOMB_FAILED = "8fd60d10b8d04479bf274900534bddd3"  # a tomb could not be opened or closed
    TOMB_PINNED = "5992033af7714b88a38e58439c0e86bd"  # a volume is the tomb from now on
    TAMPERED = "6c5c1e5da8504854908432a81e2441df"  # a mount or link is not as it should be
    MENDED = "b84036c5db194e89a56f4ca7505b1e21"  # and is so again
    RELOCKED = "7df08dfa4bad4f50a0807fca52a9fb89"  # it was restored, by its policy
    LEASE_BEGAN = "3ef915830f064989b2a7c9a84af7b063"  # a lease on / and /usr was given
    LEASE_ENDED = "106cb866ab66482e8ac1ee12ec7b02a8"  # and given back
    BUS_CONNECTED = "2e67734c45c141f685b23c9d0f6788ef"  # the daemon is on the bus
    BUS_LOST = "d7673f93ebf3452fb748d9038de7e6c6"  # the bus went away
    BUS_NAME_TAKEN = "a4ee6e052b684f69a4819f859fa33b5c"  # another process owns org.immud1
    DENIED = "e10a218a746c429c939428fc22350573"  # polkit said no
    HOOK_FAILED = "3c7d9c5a5b0e4a8d9f0b6c4b9e2f1d70"  # a hook of /etc/immud/hooks.d failed
    SLEEP_OPEN = "b1f0a2f65c0c4c38a6a0e5c3ad9c1d4e"  # the system sleeps with a tomb open after all
    DEFECT = "086a8ec0b4054d188ea34dade20c20b6"  # a defect of immud itself, with a traceback


class Level(IntEnum):
    """syslog(3) priorities, and the names LogControl1 and the configuration use."""

    EMERG = 0
    ALERT = 1
    CRIT = 2
    ERR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7

    @property
    def label(self) -> str:
        return self.name.lower()


class Target(StrEnum):
    """Where lines go: `auto` is the journal, or standard error where there is none."""

    AUTO = "auto"
    JOURNAL = "journal"
    CONSOLE = "console"


class Sink:
    """Writes events. One for the process; never blocks on the journal, never raises."""

    def __init__(self, path: str = JOURNAL) -> None:
        self.level = Level.INFO
        self.target = Target.AUTO
        self._path = path
        self._socket: socket.socket | None = None
        self._dropped = 0

    def write(self, level: Level, message: str, fields: dict[str, str]) -> None:
        fields = {
            "MESSAGE": message,
            "PRIORITY": str(int(level)),
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            "SYSLOG_PID": str(os.getpid()),
            **fields,
        }
        if self._dropped:
            fields["IMMUD_DROPPED"] = str(self._dropped)
        if self.target != Target.CONSOLE and self._to_journal(encode(fields)):
            return
        if self.target != Target.JOURNAL:
            self._to_stderr(level, message)

    def _to_journal(self, datagram: bytes) -> bool:
        """Whether the journal has taken it, or is so busy that nobody should wait for it."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            # Sent to a path each time: a journal that was restarted has a new socket there.
            self._socket.sendto(datagram, self._path)
        except BlockingIOError:
            self._dropped += 1
            return True
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                return False
            if not self._send_memfd(datagram):
                return False
        self._dropped = 0
        return True

    def _send_memfd(self, datagram: bytes) -> bool:
        """What is too long for a datagram goes as a sealed memfd (sd-journal's own way)."""
        assert self._socket is not None
        fd = os.memfd_create("immud-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(datagram)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))
            self._socket.sendmsg([], [rights], 0, self._path)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _to_stderr(self, level: Level, message: str) -> None:
        lines = "".join(f"<{int(level)}>{line}\n" for line in message.splitlines())
        try:
            os.write(2, lines.encode(errors="backslashreplace"))
        except OSError:
            # Nowhere is left to say it.
            self._dropped += 1


def encode(fields: dict[str, str]) -> bytes:
    """The journal's native protocol: NAME=value, or with a length where a value has lines."""
    out = bytearray()
    for name, value in fields.items():
        data = value.encode(errors="backslashreplace")
        if b"\n" in data:
            out += name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
        else:
            out += name.encode() + b"=" + data + b"\n"
    return bytes(out)


class Logger(BoundLoggerBase):
    """structlog's logger with the levels of syslog, typed.

    `message_id` becomes MESSAGE_ID, `errno` ERRNO, anything else IMMUD_<NAME>.
    """

    def debug(self, message: str, **fields: Any) -> None:
        self._log(Level.DEBUG, message, fields)

    def info(self, message: str, **fields: Any) -> None:
        self._log(Level.INFO, message, fields)

    def notice(self, message: str, **fields: Any) -> None:
        self._log(Level.NOTICE, message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        self._log(Level.WARNING, message, fields)

    def error(self, message: str, **fields: Any) -> None:
        self._log(Level.ERR, message, fields)

    def defect(self, message: str, error: BaseException, **fields: Any) -> None:
        """An exception nobody expected: with its traceback, as one entry."""
        text = "".join(traceback.format_exception(error)).rstrip()
        fields.setdefault("message_id", MessageId.DEFECT)
        self._log(Level.ERR, f"{message}\n{text}", fields)

    def _log(self, level: Level, message: str, fields: dict[str, Any]) -> None:
        # Before anything is formatted: a debug line nobody wants costs one comparison.
        if level <= sink.level:
            self._proxy_to_logger("event", message, _level=level, **fields)


WELL_KNOWN = {"message_id": "MESSAGE_ID", "errno": "ERRNO"}


def _render(_: object, __: str, event: EventDict) -> tuple[tuple[Any, ...], Any]:
    """The last structlog processor: an event as the arguments of `_Output.event`."""
    message, level = event.pop("event"), event.pop("_level")
    fields = {
        WELL_KNOWN.get(key) or f"IMMUD_{key.upper()}": str(value) for key, value in event.items()
    }
    return (level, message, fields), {}


class _Output:
    """What structlog takes for the logger beneath; it writes to whatever `sink` is now."""

    def event(self, level: Level, message: str, fields: dict[str, str]) -> None:
        sink.write(level, message, fields)


sink = Sink()


def get(**fields: Any) -> Logger:
    """A logger that adds these fields to each of its lines."""
    return Logger(_Output(), [_render], dict(fields))


def loop_exception_handler(loop: object, context: dict[str, Any]) -> None:
    """For `loop.set_exception_handler`: asyncio's own goes through `logging`."""
    message = str(context.get("message") or "Unhandled exception in the event loop")
    error = context.get("exception")
    if isinstance(error, BaseException):
        get().defect(message, error)
    else:
        get().error(message, message_id=MessageId.DEFECT)
