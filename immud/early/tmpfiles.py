"""tmpfiles.d lines that follow the links, so that systemd-tmpfiles sees directories again.

The vendor's `Q /home` and `q /tmp` complain at every boot when a link is there
("already exists and is not a directory"), and once the cleaner looks after
/sysroot/tmp, the vendor's `x /tmp/systemd-private-%b-*` no longer protects anything
in it. So every line about a path that has become a link, or about something
below it, is written again with the path behind the link (tmpfiles.d(5): a file in
/run replaces the one of the same name in /usr/lib).

Written for the boot at hand, for the links that really are there: a system that
is not adopted, or has left immud, has no such file.
"""

import os

DIRECTORY = "/run/tmpfiles.d"
VENDOR = ("/usr/lib/tmpfiles.d", "/usr/local/lib/tmpfiles.d")
ADMIN = "/etc/tmpfiles.d"
EXTRA = "immud.conf"

Moved = tuple[tuple[str, str], ...]
"""Pairs of a path that is a link now and the directory behind it: ("/home", "/var/home")."""


def overrides(moved: Moved, vendor: dict[str, str], admin: dict[str, str]) -> dict[str, str]:
    """The files for DIRECTORY, name to text. Pure.

    `vendor` and `admin` map file names to texts. A vendor's file is replaced as a
    whole, its other lines unchanged. One of the administrator's cannot be
    replaced from /run, nor should it be: its lines are repeated for the new place.
    """
    files = {}
    for name, text in vendor.items():
        if name in admin or not any(link in text for link, _ in moved):
            continue
        lines = text.split("\n")
        followed = [_follow(line, moved) for line in lines]
        if followed != lines:
            files[name] = "\n".join(followed)
    extra = [
        _follow(line, moved)
        for name in sorted(admin)
        for line in admin[name].split("\n")
        if _follow(line, moved) != line
    ]
    if extra:
        files[EXTRA] = "\n".join(extra) + "\n"
    return files


def write(moved: Moved, root: str = "") -> None:
    """Put the overrides for `moved` in place, before systemd-tmpfiles runs.

    Raises OSError; what is missing then is only silence, so a caller may go on.
    """
    vendor = {}
    for directory in VENDOR:
        vendor.update(_texts(root + directory))
    files = overrides(moved, vendor, _texts(root + ADMIN)) if moved else {}
    if files:
        os.makedirs(root + DIRECTORY, mode=0o755, exist_ok=True)
    for name, text in files.items():
        with open(
            f"{root}{DIRECTORY}/{name}", "w", encoding="utf-8", errors="surrogateescape"
        ) as file:
            file.write(text)


def _follow(line: str, moved: Moved) -> str:
    """The line with its path behind the link; the line itself where no link concerns it."""
    fields = line.split(None, 2)
    if len(fields) < 2 or fields[0].startswith("#"):
        return line
    quote = fields[1][0] if fields[1][0] in "\"'" else ""
    path = fields[1][len(quote) :]
    for link, directory in moved:
        rest = path.removeprefix(link)
        if rest != path and rest[:1] in ("", "/", quote):
            return line.replace(fields[1], quote + directory + rest, 1)
    return line


def _texts(directory: str) -> dict[str, str]:
    """The *.conf files of a directory, by name."""
    texts: dict[str, str] = {}
    try:
        names = os.listdir(directory)
    except OSError:
        return texts
    for name in names:
        if name.endswith(".conf"):
            try:
                with open(
                    f"{directory}/{name}", encoding="utf-8", errors="surrogateescape"
                ) as file:
                    texts[name] = file.read()
            except OSError:  # a dangling link, a directory: systemd-tmpfiles says so itself
                continue
    return texts
