"""`immud debug`: what a report of a defect needs, in one text, and nothing that is secret.

Each part is gathered for itself: what fails is said in its place, and the rest goes on.
"""

import asyncio
import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator

from immud import __version__
from immud.config.layout import SILVERBLUE
from immud.early import attempts, facts, inputs, plan
from immud.run import run

PACKAGES = (
    *("immud", "systemd", "udev", "dbus", "polkitd", "linux-image-amd64", "cryptsetup-bin"),
    *("python3", "python3-dbus-next", "python3-pyudev", "python3-pystemd", "python3-structlog"),
)
PATHS = tuple(row.path for row in SILVERBLUE)

FILES = (
    "/etc/os-release",
    "/proc/cmdline",
    "/etc/fstab",
    attempts.PATH,
    plan.PATH,
    facts.PATH,
    "/proc/self/mountinfo",
)
# What people would run one by one, each with the title of its part.
PROGRAMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("kernel", ("uname", "-srvm")),
    ("packages", ("dpkg-query", "-W", *PACKAGES)),
    ("layout", ("ls", "-ld", *PATHS)),
    ("state", ("immud", "status", "--json")),
    ("findings", ("immud", "verify", "--json")),
    ("next boot", ("immud", "plan")),
    # Not of leases: that would have the command lines of all that runs in them.
    ("units", ("systemctl", "--no-pager", "--full", "status", "immud.*", "immud-[!l]*")),
    ("unit file", ("systemctl", "--no-pager", "cat", "immud.service")),
    ("ordering", ("systemd-analyze", "--no-pager", "critical-chain", "immud.service")),
    ("failed units", ("systemctl", "--no-pager", "--failed")),
    ("drives", ("lsblk", "-o", "NAME,TYPE,SIZE,RO,FSTYPE,UUID,MOUNTPOINTS")),
    ("journal of this boot", ("journalctl", "-b", "-u", "immud", "-n", "400")),
    ("journal of the boot before", ("journalctl", "-b", "-1", "-u", "immud", "-n", "200")),
)
JOURNAL = ("--no-pager", "--no-hostname", "-o", "short-monotonic")

LIMIT = 4 << 20
"""Bytes of what one program says."""

# fstab(5) and the kernel's command line can hold passwords; nothing of immud's own does. cifs
# takes "pass" as well.
_SECRET = re.compile(
    r"(?i)\b([\w.-]*(?:pass|(?:passw|passphrase|secret|credential|token)[\w.-]*))=([^\s,]+)"
)
# What somebody had a lease for is theirs: `echo root:x | chpasswd`. Further lines of a message are
# indented, by journalctl(1) and systemctl(1).
_COMMAND = re.compile(r"(\blease on \S.* was given to (?:root|uid \d+): ).*(?:\n[ \t].*)*")


def debug(arguments: Namespace) -> int:
    """Gather everything and print it, or write it to a file for its owner alone."""
    text = "".join(asyncio.run(_gather()))
    if not arguments.output:
        sys.stdout.write(text)
        return 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(arguments.output, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    print(
        f"Written to {arguments.output}. It has no keys and no passphrases, but names of drives "
        "and users: read it before you send it."
    )
    return 0


async def _gather() -> list[str]:
    who = "root" if os.geteuid() == 0 else "not root, so some parts are missing"
    parts = [f"immud {__version__}, by {who}\n"]
    parts += [_part(path, _content(path)) for path in (*FILES, *_configuration())]
    for title, argv in PROGRAMS:
        options = JOURNAL if argv[0] == "journalctl" else ()
        parts.append(_part(title, await _said((*argv, *options))))
    return parts


def _configuration() -> Iterator[str]:
    try:
        yield from inputs.files()
    except OSError as error:
        yield error.filename or inputs.DROPINS


def _part(title: str, text: str) -> str:
    return f"\n== {title} ==\n{scrub(text).rstrip()}\n"


def scrub(text: str) -> str:
    """`text` without the commands of leases, and values that look secret by their names."""
    return _SECRET.sub(r"\1=[left out]", _COMMAND.sub(r"\1[left out]", text))


def _content(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return file.read()
    except OSError as error:
        return f"({error.strerror})"


async def _said(argv: tuple[str, ...]) -> str:
    """What a program says, whatever status it ends with: a failure is what is looked for."""
    try:
        result = await run(*argv, timeout=30, allowed=tuple(range(256)), limit=LIMIT)
    except Exception as error:
        return f"({error})"
    # What is newest in a journal comes last.
    cut = "\n(cut off)\n" if len(result.stdout) >= LIMIT else ""
    return result.stdout.decode(errors="backslashreplace") + cut + result.stderr
