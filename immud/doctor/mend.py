"""What `immud doctor --fix` does by itself: nothing that moves or removes anybody's data."""

import asyncio
import os
from collections.abc import Callable, Mapping

from immud.adopt import apparmor
from immud.doctor.facts import Seen
from immud.run import run

# What systemctl(1) is asked where a profile may be loaded.
_RELOAD = ("systemctl", "reload", "apparmor.service")


def _bytecode(_seen: Seen) -> str:
    # In a lease where /usr is read-only; where it is not, the lease just runs it.
    asyncio.run(run("immud", "unlock", "--", "py3compile", "-p", "immud", timeout=300))
    return "compiled immud's modules"


def _new_homes(seen: Seen) -> str:
    directory = next(f.row.directory for f in seen.adoption.rows if f.row.path == "/home")
    asyncio.run(run("useradd", "--defaults", "--base-dir", directory))
    return f"new users get homes in {directory}"


def _apparmor(seen: Seen) -> str:
    text = apparmor.text(fact.row for fact in seen.adoption.rows if fact.linked)
    aside = f"{apparmor.FILE}.new"
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(aside, apparmor.FILE)
    if seen.adoption.apparmor.active:
        asyncio.run(run(*_RELOAD, timeout=120))
    return f"wrote {apparmor.FILE}"


FIXES: Mapping[str, Callable[[Seen], str]] = {
    "bytecode": _bytecode,
    "new-homes": _new_homes,
    "apparmor": _apparmor,
}
