"""The journal's native protocol for the few lines a lease has, without immud.log's libraries."""

import _socket
import os
import sys

SOCKET = "/run/systemd/journal/socket"
BEGAN = "3ef915830f064989b2a7c9a84af7b063"  # immud.log.MessageId.LEASE_BEGAN
ENDED = "106cb866ab66482e8ac1ee12ec7b02a8"  # immud.log.MessageId.LEASE_ENDED

_DATAGRAM_MAX = 1 << 16  # well below any net.core.wmem_default
_PLAIN = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-")


def tell(message: str, message_id: str, fields: dict[str, str], path: str = SOCKET) -> None:
    """One entry. Best effort: a lease is worth more than the note about it."""
    entry = {
        "MESSAGE": message,
        "MESSAGE_ID": message_id,
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "immud",
        "SYSLOG_PID": str(os.getpid()),
        # `journalctl -u immud` shows it too, since root says that it is about that unit.
        "OBJECT_SYSTEMD_UNIT": "immud.service",
        **fields,
    }
    data = b""
    for name, value in entry.items():
        # Every value with its length, so that a newline in it is one.
        text = os.fsencode(value)
        data += name.encode() + b"\n" + len(text).to_bytes(8, "little") + text + b"\n"
    journal = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        if len(data) < _DATAGRAM_MAX:
            journal.sendto(data, path)
        else:
            _send_memfd(journal, data, path)
    except OSError:
        pass  # no journal
    finally:
        journal.close()


def _send_memfd(journal: _socket.socket, data: bytes, path: str) -> None:
    """What is too long for a datagram goes as a sealed memfd, as sd-journal does it."""
    import fcntl  # noqa: PLC0415 - only here

    fd = os.memfd_create("immud-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))
        journal.sendmsg([], [rights], 0, path)
    finally:
        os.close(fd)


def shown(command: tuple[str, ...]) -> str:
    """A command line as a person would type it; shlex would bring re, which takes its time."""
    return " ".join(
        word if word and not set(word) - _PLAIN else "'" + word.replace("'", "'\"'\"'") + "'"
        for word in command
    )
