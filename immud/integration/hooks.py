"""What the administrator wants run when a tomb opens or closes: /etc/immud/hooks.d.

Each executable of `hooks.d/EVENT` is run in the order of the names, one after the other, as a
transient service: the journal has what it says, and nothing of it is left when it has ended.
They run as root, so nobody but root may be able to change what is run.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from immud import log
from immud.errors import ImmudError
from immud.log import MessageId
from immud.model import Problem, Severity
from immud.systemd import NAME_MAX, Systemd, UnitFailed, escape

DIRECTORY = "/etc/immud/hooks.d"
# Seconds a hook has, and what it gets to end after that.
LIMIT = 30
GRACE = 5
LINKS_MAX = 40  # as many as the kernel follows in one walk (path_resolution(7))
# What package managers and editors leave beside a file (systemd ignores the same).
_LEFT_BEHIND = ("~", ".bak", ".swp", ".orig", ".rpmnew", ".rpmsave", ".rpmorig")


class Event(StrEnum):
    """When a hook is run."""

    OPENED = "opened"
    """The tomb is mounted, its binds are in place; its targets come up after this."""
    CLOSING = "closing"
    """Somebody asked for it to be closed, and its targets are down; it is mounted still."""
    CLOSED = "closed"
    """It is closed; nothing of it is left."""
    LOST = "lost"
    """Its drive was pulled out, or its mount was taken away; it is gone."""


@dataclass(frozen=True, slots=True)
class About:
    """The tomb a hook is told about."""

    name: str
    mount_point: str
    uuid: str


def find(event: Event, directory: str = DIRECTORY) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The hooks of an event in the order of their names, and why others are not among them.

    What is not executable, or left behind by an editor or a package, is no hook.
    """
    hooks, refused = [], []
    where = os.path.join(directory, event)
    try:
        names = sorted(os.listdir(where))
    except FileNotFoundError:
        return (), ()
    except OSError as error:
        return (), (f"{where} cannot be read: {error.strerror}.",)
    for name in names:
        path = os.path.join(where, name)
        if name.startswith(".") or name.endswith(_LEFT_BEHIND) or ".dpkg-" in name:
            continue
        try:
            if is_hook(path):
                hooks.append(path)
        except ImmudError as error:
            refused.append(f"The hook {path} is not run: {error}")
    return tuple(hooks), tuple(refused)


def is_hook(path: str) -> bool:
    """Whether there is something to execute at `path`, which root alone can change.

    Not the file only: whoever can write to any directory on the way to it, that of a link
    included, can put another one in its place. Where root alone can, what was looked at is
    what is executed. Raises ImmudError where others can.
    """
    at, ahead, links = "/", path.split("/")[::-1], 0
    while ahead:
        name = ahead.pop()
        if name == "..":
            at = os.path.dirname(at)
        elif name not in ("", "."):
            found = _judged(at, os.path.join(at, name))
            if not stat.S_ISLNK(found.st_mode):
                at = os.path.join(at, name)
                continue
            to, links = os.readlink(os.path.join(at, name)), links + 1
            if links > LINKS_MAX:
                raise ImmudError("there are too many links on the way to it.")
            at = "/" if to.startswith("/") else at
            ahead += to.split("/")[::-1]
    found = _judged(at, at)
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o111)


def _judged(directory: str, path: str) -> os.stat_result:
    """What `path` is, in a directory in which root alone can make it something else."""
    try:
        found, above = os.lstat(path), os.lstat(directory)
    except OSError as error:
        raise ImmudError(f"{error.filename}: {error.strerror}.") from error
    for where, state in ((directory, above), (path, found)):
        if state.st_uid != 0:
            raise ImmudError(f"{where} belongs to user {state.st_uid}: chown root {where}")
        # An access control list shows in the bits of the group (acl(5)), and a link has none.
        if state.st_mode & 0o022 and not stat.S_ISLNK(state.st_mode):
            mode = f"{stat.S_IMODE(state.st_mode):04o}"
            raise ImmudError(f"others may write to {where} (mode {mode}): chmod go-w {where}")
    return found


def unit_name(event: Event, tomb: str, hook: str) -> str:
    """The unit a hook is run as, by which journalctl(1) finds what it said."""
    # Nobody reads a path out of it, so that a hyphen may stay one.
    said = escape(f"{tomb}-{event}-{os.path.basename(hook)}").replace(r"\x2d", "-")
    name = f"immud-hook-{said}"
    return f"{name[: NAME_MAX - len('.service')]}.service"


class Hooks:
    """Runs them. `problems` has what went wrong, until the same event has gone well."""

    def __init__(
        self, systemd: Systemd, changed: Callable[[], None], directory: str = DIRECTORY
    ) -> None:
        self._systemd = systemd
        self._changed = changed
        self._directory = directory
        self._wrong: dict[tuple[str, Event], tuple[str, ...]] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(
            Problem(Severity.WARNING, "hook-failed", text, {"tomb": tomb, "event": str(event)})
            for (tomb, event), texts in self._wrong.items()
            for text in texts
        )

    def any(self, event: Event) -> bool:
        """Whether there is anything to run, or to complain about."""
        return find(event, self._directory) != ((), ())

    async def run(self, event: Event, about: About) -> tuple[str, ...]:
        """Run the hooks of `event`, all of them even where one fails; what went wrong."""
        hooks, refused = find(event, self._directory)
        failed = list(refused)
        for hook in hooks:
            try:
                await self._one(event, about, hook)
            except UnitFailed:
                # The unit is gone with its failure, and what it said is not.
                see = f"journalctl -u '{unit_name(event, about.name, hook)}'"
                failed.append(f"The hook {hook} failed for tomb {about.name}; see: {see}")
            except ImmudError as error:
                failed.append(f"The hook {hook} was not run for tomb {about.name}: {error}")
        for text in failed:
            log.get(tomb=about.name, event=event).warning(text, message_id=MessageId.HOOK_FAILED)
        if tuple(failed) != self._wrong.pop((about.name, event), ()):
            self._changed()
        if failed:
            self._wrong[about.name, event] = tuple(failed)
        return tuple(failed)

    async def _one(self, event: Event, about: About, hook: str) -> None:
        unit = unit_name(event, about.name, hook)
        environment = {
            "IMMUD_EVENT": str(event),
            "IMMUD_TOMB": about.name,
            "IMMUD_MOUNT_POINT": about.mount_point,
            "IMMUD_UUID": about.uuid,
        }
        await self._systemd.run_unit(
            unit,
            {
                "Description": ("s", f"Hook {os.path.basename(hook)}: tomb {about.name} {event}"),
                "Type": ("s", "oneshot"),
                "ExecStart": ("a(sasb)", [[hook, [hook], False]]),
                "Environment": ("as", [f"{key}={value}" for key, value in environment.items()]),
                "SyslogIdentifier": ("s", os.path.basename(hook)),
                "TimeoutStartUSec": ("t", LIMIT * 1_000_000),
                "TimeoutStopUSec": ("t", GRACE * 1_000_000),
                "CollectMode": ("s", "inactive-or-failed"),
                # Otherwise none could be started while the system stops, when tombs are closed.
                "DefaultDependencies": ("b", False),
            },
            timeout=LIMIT + 2 * GRACE,
        )
