"""`immud unlock`."""

from __future__ import annotations

import os
import sys

from immud.errors import ImmudError, NotAuthorized, UsageError
from immud.lease import begin, wire

TYPE_CHECKING = False  # see immud.errors
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import ClassVar, NoReturn

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class NotFound(ImmudError):
    """There is no such command; the status is the one a shell would have."""

    exit_code: ClassVar[int] = 127


def unlock(arguments: Namespace) -> NoReturn:
    """Become the command, with a lease. Returns only by raising."""
    command: list[str] = arguments.command[arguments.command[:1] == ["--"] :]
    run(command, limit=arguments.limit, reason=arguments.reason)


def plain(given: list[str]) -> None:
    """Do what `unlock` does if the arguments are `[--for T] [--reason R] -- COMMAND...`.

    argparse says what else there may be, and takes as long as the lease itself.
    """
    options = {"--for": "", "--reason": ""}
    at = 0
    while given[at : at + 1] != ["--"]:
        if at + 1 >= len(given) or given[at] not in options:
            return
        options[given[at]] = given[at + 1]
        at += 2
    if given[at + 1 :]:
        run(given[at + 1 :], limit=options["--for"], reason=options["--reason"])


def run(command: list[str], *, limit: str, reason: str) -> NoReturn:
    """Become `command`, or a shell; with a lease where one is needed."""
    seconds = duration(limit) if limit else 0
    if seconds and not begin.locked():
        # It is a lease that ends, and one within another would outlive that.
        raise UsageError(
            "/ and /usr are writable here already, so there is no lease for --for to end; "
            f"leave it out, or use: timeout {seconds} COMMAND"
        )
    if not command:
        command = [_shell()]
    # First of all: what is not in a user's PATH, as all of /usr/sbin, may be in root's.
    if os.geteuid() != 0:
        _ask_polkit(["--for", limit] * bool(limit) + ["--reason", reason] * bool(reason), command)
    program = _find(command[0])
    if begin.locked():
        try:
            lease = begin.begin(tuple(command), reason=reason, seconds=seconds)
        except wire.Failed as error:
            raise ImmudError(f"{error}; nothing was run") from None
        os.environ["IMMUD_LEASE"] = lease.id
    _become(program, command)


def _ask_polkit(options: list[str], command: list[str]) -> NoReturn:
    """Become root by way of pkexec(1), which asks polkit for org.immud1.unlock.

    It keeps the terminal, and the session, that the command is to have. The environment it
    makes anew, and where nobody is authorised the status is its own.
    """
    given = ["immud", "unlock", *options, "--", *command]
    try:
        pkexec = _find("pkexec")
    except NotFound:
        from shlex import join  # noqa: PLC0415 - only here

        text = f"a lease is for root, and pkexec is not installed; try: sudo {join(given)}"
        raise NotAuthorized(text) from None
    _become(pkexec, ["pkexec", "--keep-cwd", "/usr/bin/immud", *given[1:]])


def _become(program: str, command: list[str]) -> NoReturn:
    try:
        begin.become(program, command)
    except OSError as error:
        raise NotFound(f"{program}: {error.strerror}") from None


def _shell() -> str:
    """Without a command: a shell, where there is somebody to use it."""
    if not (os.isatty(0) and os.isatty(2)):
        raise UsageError("say which command is to run: immud unlock -- COMMAND")
    print(
        "/ and /usr are writable in this shell, and nowhere else; leave it with: exit",
        file=sys.stderr,
    )
    return os.environ.get("SHELL") or "/bin/sh"


def _find(name: str) -> str:
    """The program a shell would take. Looked for first: no lease is opened in vain."""
    if "/" in name:
        candidates = [name]
    else:
        candidates = [os.path.join(place, name) for place in os.get_exec_path()]
    for candidate in candidates:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    raise NotFound(f"{name}: command not found")


def duration(text: str) -> int:
    """`90`, `90s`, `10m`, `2h` or `1h30m` in seconds. Raises UsageError."""
    total, digits = 0, ""
    for character in text:
        if character.isascii() and character.isdigit():
            digits += character
        elif digits and character in _UNITS:
            total += int(digits) * _UNITS[character]
            digits = ""
        else:
            total, digits = 0, ""
            break
    total += int(digits or 0)
    if not 0 < total <= 365 * 86400:
        raise UsageError(f"--for: invalid duration {text!r}; use e.g. 90s, 10m or 1h30m")
    return total
