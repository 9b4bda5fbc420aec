"""The mounts that fstab and units ask for.

systemd refuses a unit whose path crosses a link; of fstab's lines it makes units where that leads.
"""

import os
from dataclasses import replace

from immud.adopt.facts import Declared
from immud.early.observe import FSTAB, fstab_fields
from immud.enable.fstab import OWN
from immud.tripwire.places import UNITS


def mounts(own_etc: str = "") -> tuple[Declared, ...]:
    """Every mount declared on this system, whether it is mounted now or not.

    `own_etc` is the root file system's own, where another is shown (see immud.adopt.root).
    """
    found = [*in_fstab(_text(FSTAB)), *_in_units(UNITS)]
    if own_etc:
        found += in_fstab(_text(f"{own_etc}/fstab"), own=True)
        for one in _in_units((f"{own_etc}/systemd/system",)):
            found.append(replace(one, origin=f"/etc{one.origin[len(own_etc) :]}{OWN}", own=True))
    return tuple(found)


def _in_units(directories: tuple[str, ...]) -> list[Declared]:
    found: list[Declared] = []
    for directory in directories:
        names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        for name in names:
            path = f"{directory}/{name}"
            # A masked unit is a link to /dev/null: no regular file.
            if name.endswith((".mount", ".automount")) and os.path.isfile(path):
                found += in_unit(_text(path), path)
    return found


def in_fstab(text: str, *, own: bool = False) -> tuple[Declared, ...]:
    """The lines of fstab(5), each with its number as the origin."""
    found = []
    whose = OWN if own else ""
    for number, line in enumerate(text.split("\n"), 1):
        fields = fstab_fields(line)
        if len(fields) >= 2 and fields[1].startswith("/"):
            where = fields[1].rstrip("/") or "/"
            found.append(Declared(f"{FSTAB}:{number}{whose}", where, fields[0], own))
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
