"""What `immud doctor --fix` does by itself: nothing that moves or removes anybody's data."""

import asyncio
from collections.abc import Callable, Mapping

from immud.adopt import adopt, apparmor
from immud.doctor.facts import Seen
from immud.run import run


def _bytecode(_seen: Seen) -> str:
    # In a lease where /usr is read-only; where it is not, the lease just runs it.
    asyncio.run(run("immud", "unlock", "--", "py3compile", "-p", "immud", timeout=300))
    return "compiled immud's modules"


def _new_homes(seen: Seen) -> str:
    directory = next(f.row.directory for f in seen.adoption.rows if f.row.path == "/home")
    asyncio.run(run("useradd", "--defaults", "--base-dir", directory))
    return f"new users get homes in {directory}"


def _apparmor(seen: Seen) -> str:
    rows = tuple(fact.row for fact in seen.adoption.rows)
    linked = tuple(fact.row for fact in seen.adoption.rows if fact.adopted)
    # Adopting what is adopted moves nothing, and brings this file up to date.
    adopt(linked, rows)
    return f"wrote {apparmor.FILE}"


FIXES: Mapping[str, Callable[[Seen], str]] = {
    "bytecode": _bytecode,
    "new-homes": _new_homes,
    "apparmor": _apparmor,
}
