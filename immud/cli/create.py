"""`immud tomb create`."""

import asyncio
import os
import sys
from argparse import Namespace
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from immud.cli.enable import require_root
from immud.cli.enrol import given
from immud.cli.keys import Keys
from immud.cli.reload import reload
from immud.cli.render import visible
from immud.config import rules
from immud.config.load import load
from immud.errors import ImmudError, NoSuchJob, UsageError, WrongState
from immud.make.target import Target, Wish, human
from immud.model import TombState

if TYPE_CHECKING:
    from immud.client import Client
    from immud.make.steps import Step

TOMB, JOB = "org.immud1.Tomb", "org.immud1.Job"
OPENING = 60.0
"""Seconds that opening a tomb usually does not take."""
LABEL_MAX = 47
"""Bytes a LUKS2 header has for a label."""


def create(arguments: Namespace) -> int:
    """Make a drive a tomb. Nothing is written before everything has been asked and checked."""
    require_root("immud tomb create")
    from immud.make import enrolment  # noqa: PLC0415 - after the right to use it is clear
    from immud.make.observe import look  # noqa: PLC0415
    from immud.make.plan import plan  # noqa: PLC0415
    from immud.make.refuse import check, resumes  # noqa: PLC0415

    wish = wished(arguments)
    keys = Keys(arguments.key_file, arguments.passphrase_fd)
    config = load()
    if wish.enrol:
        enrolment.check_name(wish.name, config)
        enrolment.check(wish, enrolment.NO_UUID)
    target = asyncio.run(look(arguments.device, config))
    check(target, wish)
    if arguments.dry_run:
        _show(plan(target, wish), as_json=arguments.json)
        return 0
    if wish.source:
        _measure(target, wish)
    resumed = resumes(target, wish)
    _confirm(arguments, target, resumed=resumed)
    key = keys.existing("Passphrase it was given: ") if resumed else keys.chosen(wish.name)
    _make(target, wish, key)
    if wish.enrol:
        print(f"{target.devnode} is tomb {wish.name} now.")
    else:
        print(f"{target.devnode} is finished, and can be unplugged.")
    if wish.source:
        _kept(wish)
    if wish.enrol and reload():
        _open(wish, key)
    return 0


def wished(arguments: Namespace) -> Wish:
    """What the arguments ask for. Raises UsageError for what makes no sense."""
    name = given("--name", rules.tomb_name, arguments.name)
    mount = given("--mount", rules.path, arguments.mount)
    key, label = "ask", ""
    if arguments.key_file:
        key = given("--key-file", rules.key, os.path.abspath(arguments.key_file))
    if arguments.label:
        label = given("--label", rules.word, arguments.label)
    if len(os.fsencode(label)) > LABEL_MAX:
        raise UsageError(f"a label has at most {LABEL_MAX} bytes")
    # Where it is, and not a link such as /home that leads there.
    source = os.path.realpath(arguments.source) if arguments.source else ""
    if source and not os.path.isdir(source):
        raise UsageError(f"--from {source}: there is no such directory")
    if arguments.json and not arguments.dry_run:
        raise UsageError("--json goes with --dry-run")
    return Wish(
        name=name,
        filesystem=arguments.fs,
        label=label,
        partition=arguments.partition,
        overwrite=arguments.overwrite,
        source=source,
        mount=mount,
        key=key,
        enrol=not arguments.no_enrol,
        derivation=derivation(arguments),
    )


def derivation(arguments: Namespace) -> tuple[str, ...]:
    """The options of cryptsetup(8) for the key derivation that were given."""
    given = (("--iter-time", arguments.iter_time), ("--pbkdf-memory", arguments.pbkdf_memory))
    pairs = ((option, str(value)) for option, value in given if value is not None)
    return tuple(word for pair in pairs for word in pair)


def _show(steps: "tuple[Step, ...]", *, as_json: bool) -> None:
    if as_json:
        import json  # noqa: PLC0415 - only here

        print(json.dumps([{"operation": type(s).__name__, "description": s.describe()}
                          for s in steps], indent=2))  # fmt: skip
        return
    for step in steps:
        print(visible(step.describe()))


def _confirm(arguments: Namespace, target: Target, *, resumed: bool) -> None:
    """Have the person type what the drive is: /dev/sdb is another one tomorrow."""
    node, meant = target.devnode, arguments.yes_i_mean
    if meant:
        if os.path.realpath(meant) != os.path.realpath(arguments.device):
            raise UsageError(f"--yes-i-mean {meant} is not {arguments.device}; nothing was done")
        return
    if resumed:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"standard input is not a terminal; use --yes-i-mean {node} to confirm")
    what = f"{visible(target.title)} ({node})"
    lost = "It is empty." if not target.content else "Everything on it will be erased:"
    print(f"{what} becomes a tomb. {lost}", file=sys.stderr)
    for line in target.content:
        print(f"  {visible(line)}", file=sys.stderr)
    sys.stderr.write(f"To continue, type the drive's name, {visible(target.title)}: ")
    sys.stderr.flush()
    typed = sys.stdin.readline()
    if " ".join(typed.split()).casefold() != visible(target.title).casefold():
        raise UsageError("that is not its name; nothing was done")


def _measure(target: Target, wish: Wish) -> None:
    """Raise where what is to be copied does not fit; say what of it is not copied."""
    from immud.make.copying import mounted_in, size  # noqa: PLC0415 - after the right is clear

    needed = asyncio.run(size(wish.source))
    # What a file system keeps for itself differs; most of them less than this.
    if needed > target.size * 95 // 100:
        raise ImmudError(
            f"{wish.source} holds {human(needed)}, which do not fit on {target.devnode} "
            f"({human(target.size)}). Nothing was changed."
        )
    for path in mounted_in(wish.source):
        print(f"{visible(path)} is another file system, and is not copied.", file=sys.stderr)


def _make(target: Target, wish: Wish, key: bytes) -> None:
    from immud.make.execute import carry_out, locked, settle  # noqa: PLC0415 - as above
    from immud.make.observe import look  # noqa: PLC0415
    from immud.make.plan import plan  # noqa: PLC0415
    from immud.make.refuse import check  # noqa: PLC0415

    def waiting() -> None:
        print(f"Waiting for another program to let go of {target.disk} ...", file=sys.stderr)

    async def work() -> None:
        with locked(target, waiting):
            # What an interrupted run left may have gone by itself; the rest is what was agreed to.
            now = await look(target.devnode, load())
            if replace(now, uses=(), leftovers=()) != replace(target, uses=(), leftovers=()):
                raise ImmudError(
                    f"{target.devnode} has changed meanwhile, or is another drive. "
                    "Nothing was done; run this again."
                )
            check(now, wish)
            await carry_out(now, plan(now, wish), key, told, target.title)
        await settle(target)

    def told(step: "Step", progress: str) -> None:
        _status(progress)
        if not progress:
            print(visible(step.describe()), flush=True)

    try:
        asyncio.run(work())
    finally:
        _status("")


def _status(text: str) -> None:
    """One line on the terminal that the next one replaces."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _kept(wish: Wish) -> None:
    """Where the originals are, which nobody but the person removes."""
    print(f"What was in {wish.source} is still there, as it was before: not encrypted.")
    if rules.within(wish.source, wish.mount):
        print(
            f"While the tomb is open at {wish.mount}, it is hidden behind it. To see it, and to "
            f"remove it when all is well:\n    immud close {wish.name} && ls -A {wish.source}"
        )
    print("What is removed can be recovered from a drive until something is written over it.")


def _open(wish: Wish, key: bytes) -> None:
    """Hand the daemon what it would ask for a moment later; that it cannot open is no failure."""
    from immud.cli.bus import talk  # noqa: PLC0415 - only with a daemon

    async def opened(client: "Client") -> None:
        path = await client.tomb(wish.name)
        try:
            jobs = [await client.open_tomb(wish.name, key)]
        except WrongState:
            # It needed no answer, and is on its way, or there.
            jobs = [
                job
                for job, inner in (await client.objects()).items()
                if inner.get(JOB, {}).get("Object") == path
            ]
        for job in jobs:
            with suppress(NoSuchJob):
                await client.wait(job)
        state = await client.get(path, TOMB, "State")
        if state != TombState.OPEN:
            raise ImmudError(f"it is {state}. See: immud status")

    async def soon(client: "Client") -> None:
        # Whoever is logged in is in the way of their own home: nobody waits for that here.
        await asyncio.wait_for(opened(client), OPENING)

    try:
        talk(soon)
    except TimeoutError:
        print("It is opened as soon as nobody is in the way; see who is: immud status")
    except ImmudError as error:
        print(f"The tomb was created but could not be opened: {error}", file=sys.stderr)
    else:
        print(f"Tomb {wish.name} is open at {wish.mount}.")
