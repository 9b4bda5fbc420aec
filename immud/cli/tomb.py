"""`immud open`, `immud close` and `immud eject`."""

import functools
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from immud.cli.bus import talk
from immud.cli.render import visible
from immud.cli.status import problems_of
from immud.errors import Busy, ConfigError, ImmudError, WrongKey
from immud.model import TombState

if TYPE_CHECKING:
    from immud.bus.adapter import Signal
    from immud.client import Client

ROOT = "/org/immud1"
TOMB = "org.immud1.Tomb"
WAITS = "tomb-waits"
TRIES = 3
# Who interrupts a command waits this long for the answer that names what it has started, seconds.
ANSWER = 1.0
# From these a tomb can be opened with a passphrase; in the last, the agents are asking for it.
_LOCKED = (TombState.PRESENT, TombState.FAILED, TombState.UNLOCKING)


def open_(arguments: Namespace) -> int:
    """Open a tomb; somebody who types the passphrase has three tries, as at any prompt."""
    name: str = arguments.name
    tries = TRIES if _asks(name) and talk(lambda client: _state(client, name)) in _LOCKED else 0
    while True:
        tries -= 1
        # Asked for outside of the loop, which would swallow a ^C at the prompt.
        passphrase = _ask(name) if tries >= 0 else None
        try:
            talk(functools.partial(_open, name, passphrase, arguments.read_only))
        except WrongKey as error:
            if tries <= 0:
                raise
            print(error, file=sys.stderr)
        else:
            return 0


def _ask(name: str) -> bytes:
    from immud.cli.passphrase import ask  # noqa: PLC0415 - only here

    return ask(f"Passphrase for tomb {name}: ")


async def _open(name: str, passphrase: bytes | None, read_only: bool, client: "Client") -> None:
    if await _state(client, name) == TombState.OPEN:
        print(f"Tomb {name} is open already.")
        return
    await follow(client, name, lambda: client.open_tomb(name, passphrase, read_only=read_only))
    path = await client.tomb(name)
    mount_point = await client.get(path, TOMB, "MountPoint")
    how = ", read-only" if await client.get(path, TOMB, "ReadOnly") else ""
    print(f"Tomb {name} is open at {visible(mount_point)}{how}.")


def close(arguments: Namespace) -> int:
    """Close a tomb."""
    _let_go(arguments, "close")
    print(f"Tomb {arguments.name} is closed.")
    return 0


def eject(arguments: Namespace) -> int:
    """Close a tomb, and power its drive down."""
    _let_go(arguments, "eject")
    print(f"Tomb {arguments.name} is closed, and its drive can be unplugged.")
    return 0


def _let_go(arguments: Namespace, command: str) -> None:
    """Raises Busy, naming who is in the way and what ends them."""
    name, force = arguments.name, arguments.force

    async def run(client: "Client") -> None:
        start = client.close_tomb if command == "close" else client.eject_tomb
        try:
            await follow(client, name, lambda: start(name, force=force))
        except Busy as error:
            if force or await _state(client, name) != TombState.OPEN:
                raise
            raise Busy(f"{error} To end them: immud {command} --force {name}") from None

    talk(run)


def _asks(name: str) -> bool:
    """Is this a tomb whose passphrase a person types, and can one here?"""
    if not sys.stdin.isatty():
        return False
    from immud.config.load import load  # noqa: PLC0415 - only here

    try:
        tombs = load().tombs
    except (ConfigError, OSError):
        return False  # the daemon knows better, and its agents ask
    # The key of a tomb in a file is Dyne's, as a rule, and a passphrase is what it is opened with.
    return any(
        tomb.name == name and (tomb.key == "ask" or tomb.file) and tomb.encrypted for tomb in tombs
    )


async def _state(client: "Client", name: str) -> str:
    state: str = await client.get(await client.tomb(name), TOMB, "State")
    return state


async def follow(client: "Client", name: str, start: Callable[[], Awaitable[str]]) -> None:
    """Start a job on a tomb and wait for its end, telling how far it is.

    Interrupted, it cancels the job. Raises what the job failed with.
    """
    import asyncio  # noqa: PLC0415 - imported by now; not for `immud --help`

    signals = await client.subscribe()
    path = await client.tomb(name)
    starting = asyncio.ensure_future(start())
    try:
        job = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # It may have begun, and the answer that names it be on its way.
        with suppress(ImmudError, TimeoutError):
            async with asyncio.timeout(ANSWER):
                await client.cancel(await starting)
        raise
    telling = asyncio.create_task(_tell(signals, name, path, job))
    try:
        await client.wait(job)
    except asyncio.CancelledError:
        with suppress(ImmudError):
            await client.cancel(job)
        raise
    finally:
        telling.cancel()
        await asyncio.wait([telling])
        _erase()


async def _tell(signals: "AsyncIterator[Signal]", name: str, path: str, job: str) -> None:
    """One line on the terminal that follows the tomb's state and the job's progress.

    And, on a terminal or not, for whom the opening waits: that may be for long.
    """
    state, progress, waits = "", -1.0, ""
    async for signal in signals:
        if signal.path == ROOT and signal.member == "PropertiesChanged":
            now = waiting(name, signal.body[1].get("Problems", ()))
            if now not in ("", waits):
                _erase()
                print(visible(now), file=sys.stderr)
            waits = now or waits
        if signal.member != "PropertiesChanged" or signal.path not in (path, job):
            continue
        changed = signal.body[1]
        state = changed.get("State", state) if signal.path == path else state
        progress = changed.get("Progress", progress) if signal.path == job else progress
        if state and sys.stderr.isatty():
            percent = f" {progress:.0%}" if 0 < progress < 1 else ""
            sys.stderr.write(f"\r\x1b[K{name}: {state}{percent}")
            sys.stderr.flush()


def waiting(name: str, problems: Sequence[Sequence[Any]]) -> str:
    """What the manager's Problems say of a tomb that waits for somebody; empty if it does not."""
    found = (p.text for p in problems_of(problems) if p.code == WAITS and p.data["tomb"] == name)
    return next(found, "")


def _erase() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
