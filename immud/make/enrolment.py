"""What makes a drive a tomb of this machine: its table in the configuration, and its pin."""

import json
from dataclasses import replace

from immud import atomic
from immud.config.load import examine, load
from immud.config.toml import parse
from immud.early.inputs import DROPINS, files
from immud.errors import ConfigError, ImmudError, NoSuchTomb, TargetExists, WrongState
from immud.make.target import Wish
from immud.model import Config
from immud.run import CommandFailed, run
from immud.tomb.luks import dm, identity

# For checks made before there is a volume.
NO_UUID = "00000000-0000-0000-0000-000000000000"


def path(name: str) -> str:
    """The drop-in that enrolling writes, and forgetting removes."""
    return f"{DROPINS}/tomb-{name}.toml"


def table(wish: Wish, uuid: str, title: str) -> bytes:
    """The drop-in's text. Pure."""
    values = {"uuid": uuid, "key": wish.key, "mount": wish.mount}
    return "\n".join(
        (
            f"# The tomb {wish.name}" + (f", on {title}." if title else "."),
            "# Written by immud; change it as you like. To be rid of it, and not of the drive:",
            f"#     immud tomb forget {wish.name}",
            f"[tomb.{wish.name}]",
            *(f"{name} = {_quoted(value)}" for name, value in values.items()),
            "",
        )
    ).encode()


def _quoted(text: str) -> str:
    # A TOML basic string is written as JSON's are, for all that the rules of paths let through.
    return json.dumps(text, ensure_ascii=False)


def check_name(name: str, config: Config) -> None:
    """Raise TargetExists where there is a tomb of that name already."""
    if any(tomb.name == name for tomb in config.tombs):
        where = " and ".join(written(name)) or "the configuration"
        raise TargetExists(
            f"There is a tomb {name} already, in {where}. Give this one another --name, or first "
            f"run: immud tomb forget {name}"
        )


def check(wish: Wish, uuid: str) -> None:
    """Raise the ConfigError there would be with the new table."""
    new = path(wish.name)
    _, errors = examine(also={new: table(wish, uuid, "")})
    for error in errors:
        if error.file == new:
            # Of a file that is not there yet, neither name nor line would help anybody.
            raise ConfigError(str(error).removeprefix(f"{new}:{error.line}: "))
        raise error


async def enrol(volume: str, wish: Wish, title: str, file_system: str = "") -> bool:
    """Pin the LUKS volume and write its table; False where there is one and only the pin is new.

    `file_system` is the UUID of what is inside, where that is known. Raises where the
    configuration has no room for it. The pin comes first: a table without one would be trusted
    by its UUID alone.
    """
    uuid = await luks_uuid(volume)
    config = load()
    there = next((tomb for tomb in config.tombs if tomb.name == wish.name), None)
    other = next((tomb for tomb in config.tombs if tomb.uuid == uuid and tomb is not there), None)
    if other:
        raise TargetExists(f"{volume} is tomb {other.name} already. Nothing was changed.")
    if there and there.uuid not in ("", uuid):
        check_name(wish.name, config)
    if not there:
        check(wish, uuid)
    identity.write(wish.name, replace(identity.of(volume), file_system=file_system))
    if not there:
        atomic.replace(path(wish.name), table(wish, uuid, title), 0o644)
    return not there


async def luks_uuid(volume: str) -> str:
    """The UUID in the header. Raises ImmudError where there is none."""
    try:
        said = await run("cryptsetup", "luksUUID", volume)
    except CommandFailed as error:
        raise ImmudError(
            f"{volume} holds no LUKS volume; `lsblk -f` shows which devices do. To make one: "
            f"immud tomb create {volume}"
        ) from error
    return said.stdout.decode().strip().lower()


def written(name: str) -> list[str]:
    """Where the table of a tomb is: `FILE:LINE` for each file that has a part of it."""
    found = []
    for file in files():
        with open(file, "rb") as opened:
            values, lines = parse(opened.read(), file)
        if name in values.get("tomb", {}):
            first = min(line for key, line in lines.items() if key[:2] == ("tomb", name))
            found.append(f"{file}:{first}")
    return found


def forget(name: str) -> None:
    """Remove what `enrol` wrote. Raises WrongState while the tomb is open, NoSuchTomb for none.

    The table goes first: a pin without one is looked at by nobody.
    """
    places = written(name)
    ours = path(name)
    if not places and identity.forget(name):
        return
    if not places:
        known = ", ".join(tomb.name for tomb in load().tombs) or "none"
        raise NoSuchTomb(f"No tomb {name} is configured; configured: {known}.")
    if any(dm.belongs(mapping.name, name) for mapping in dm.mappings()):
        raise WrongState(f"Tomb {name} is open. Close it first: immud close {name}")
    by_hand = [place for place in places if not place.startswith(f"{ours}:")]
    if by_hand:
        raise ImmudError(
            f"The table of tomb {name} was written by hand, in {' and '.join(by_hand)}; remove "
            "[tomb." + name + "] there yourself. Nothing was changed."
        )
    if alone := _others_in(ours, name):
        raise ImmudError(
            f"{ours} has more in it than tomb {name} ({', '.join(alone)}); move that to another "
            "file, and run this again. Nothing was changed."
        )
    atomic.remove(ours)
    identity.forget(name)


def _others_in(file: str, name: str) -> list[str]:
    """What a drop-in has beside the one table it was written for."""
    with open(file, "rb") as opened:
        values, _ = parse(opened.read(), file)
    others = [f"[{table}]" for table in values if table != "tomb"]
    return others + [f"[tomb.{each}]" for each in values.get("tomb", {}) if each != name]
