"""The mounts that fstab and units ask for: systemd refuses those whose path crosses a link."""

import os

from immud.adopt.facts import Declared
from immud.early.plan import unescape
from immud.tripwire.places import UNITS

FSTAB = "/etc/fstab"


def mounts(fstab: str = FSTAB, units: tuple[str, ...] = UNITS) -> tuple[Declared, ...]:
    """Every mount declared on this system, whether it is mounted now or not."""
    found = [*in_fstab(_text(fstab), fstab)]
    for directory in units:
        names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        for name in names:
            path = f"{directory}/{name}"
            # A masked unit is a link to /dev/null: no regular file.
            if name.endswith((".mount", ".automount")) and os.path.isfile(path):
                found += in_unit(_text(path), path)
    return tuple(found)


def in_fstab(text: str, origin: str = FSTAB) -> tuple[Declared, ...]:
    """The lines of fstab(5), each with its number as the origin."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        if len(fields) >= 2 and not fields[0].startswith("#") and fields[1].startswith("/"):
            where = unescape(fields[1]).rstrip("/") or "/"
            found.append(Declared(f"{origin}:{number}", where, unescape(fields[0])))
    return tuple(found)


def in_unit(text: str, origin: str) -> tuple[Declared, ...]:
    """The mount a systemd.mount(5) or systemd.automount(5) unit describes."""
    values: dict[str, str] = {}
    for line in text.split("\n"):
        key, equals, value = line.partition("=")
        if equals and not key.startswith(("#", ";")):
            values[key.strip()] = value.strip()
    # systemd makes units of fstab's lines; the line is where a person can change it.
    if values.get("SourcePath") == FSTAB or "Where" not in values:
        return ()
    return (Declared(origin, values["Where"].rstrip("/") or "/", values.get("What", "")),)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""
