"""`immud tomb enrol`, `immud tomb list` and `immud tomb forget`."""

import asyncio
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from immud.cli.enable import require_root
from immud.cli.reload import reload
from immud.cli.render import Style, table
from immud.config import rules
from immud.config.load import load
from immud.errors import Unreachable, UsageError
from immud.make.target import Wish
from immud.model import TombConfig

if TYPE_CHECKING:
    from immud.client import Client


def enrol(arguments: Namespace) -> int:
    """Pin an existing volume and describe it in the configuration."""
    require_root("immud tomb enrol")
    from immud.make import enrolment  # noqa: PLC0415 - after the right to use it is clear
    from immud.make.observe import look  # noqa: PLC0415
    from immud.make.refuse import unfinished  # noqa: PLC0415

    wish = wished(arguments)

    async def work() -> tuple[str, bool]:
        target = await look(arguments.device, load())
        unfinished(target)
        return target.devnode, await enrolment.enrol(target.devnode, wish, target.title)

    device, new = asyncio.run(work())
    if new:
        print(f"{device} is tomb {wish.name} now, to be opened at {wish.mount}.")
        print(f"Its table is in {enrolment.path(wish.name)}.")
    else:
        places = " and ".join(enrolment.written(wish.name))
        print(f"Tomb {wish.name} is pinned to {device} now. Its table, in {places}, is as it was.")
    if not reload():
        print("The daemon is not running; it will open the tomb once started.")
    return 0


def wished(arguments: Namespace) -> Wish:
    """What the arguments ask for. Raises UsageError for what makes no sense."""
    name = given("--name", rules.tomb_name, arguments.name)
    mount = given("--mount", rules.path, arguments.mount)
    key = "ask"
    if arguments.key_file:
        key = given("--key-file", rules.key, os.path.abspath(arguments.key_file))
    if key != "ask":
        from immud.tomb.luks.unlock import check_key  # noqa: PLC0415 - only here

        check_key(key)
    return Wish(name=name, mount=mount, key=key)


def given(option: str, rule: Callable[[str], str], value: str) -> str:
    """The value of an option, which is to be as `rule` says. Raises UsageError."""
    try:
        return rule(value)
    except rules.Wrong as error:
        raise UsageError(f"{option}: {error}") from None


def forget(arguments: Namespace) -> int:
    """Undo enrol."""
    require_root("immud tomb forget")
    from immud.make import enrolment  # noqa: PLC0415 - after the right to use it is clear

    enrolment.forget(arguments.name)
    print(f"Tomb {arguments.name} is forgotten. Its drive, and what is on it, stay as they are.")
    reload()
    return 0


def list_(arguments: Namespace) -> int:
    """Show the tombs of the configuration, with what the daemon says of them."""
    tombs = load().tombs
    try:
        from immud.cli.bus import talk  # noqa: PLC0415 - `immud plan` works without

        states: dict[str, dict[str, Any]] | None = talk(_states)
    except Unreachable:
        states = None
    records = [record(tomb, states) for tomb in tombs]
    if getattr(arguments, "json", False):
        import json  # noqa: PLC0415 - only here

        print(json.dumps(records, indent=2))
        return 0
    if not records:
        print("No tomb is configured. To make one: immud tomb create DEVICE")
        return 0
    headers = ("NAME", "STATE", "AT", "DRIVE", "VOLUME")
    rows = [[str(each[key]) for key in ("name", "state", "mount", "device", "volume")]
            for each in records]  # fmt: skip
    for line in table(headers, rows, Style.of(sys.stdout), states=1):
        print(line)
    if states is None:
        print("The daemon is not running, so drive states are unknown. See: systemctl status immud")
    return 0


async def _states(client: "Client") -> dict[str, dict[str, Any]]:
    found = [inner.get("org.immud1.Tomb") for inner in (await client.objects()).values()]
    return {tomb["Name"]: tomb for tomb in found if tomb}


def record(tomb: TombConfig, states: dict[str, dict[str, Any]] | None) -> dict[str, Any]:
    """One tomb as `--json` shows it. Without a daemon its state is `unknown`."""
    known = (states or {}).get(tomb.name, {})
    volume = (
        tomb.uuid
        or (f"LABEL={tomb.label}" if tomb.label else "")
        or (f"PARTUUID={tomb.partuuid}" if tomb.partuuid else "")
        or f"serial {tomb.serial}"
    )
    return {
        "name": tomb.name,
        "state": known.get("State", "unknown"),
        "mount": tomb.mount,
        "device": known.get("Device", ""),
        "volume": f"{tomb.file} on {volume}" if tomb.file else volume,
        "key": tomb.key,
        "auto_open": tomb.auto_open,
    }
