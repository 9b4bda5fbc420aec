"""What people are told at login while a tomb is away: the message of the day, or no.

pam_motd(8) shows what is in /run/motd.d, pam_nologin(8) what is in /run/nologin and
lets nobody in but root.
"""

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from immud import log, rootlogin
from immud.bus.appear import Appearance
from immud.inotify import IN_DELETE, IN_MOVED_FROM, IN_ONLYDIR
from immud.model import Problem, Severity, TombConfig
from immud.tomb.absence import absent
from immud.tomb.absence.absent import Absent

MOTD = "/run/motd.d/immud"
NOLOGIN = "/run/nologin"
# The file at NOLOGIN is immud's where it is this one, by another name.
OURS = "/run/immud/nologin"

NO_ROOT = Problem(
    Severity.WARNING,
    "nologin-refused",
    'A tomb has absent = "nologin", and root cannot log in either: so everybody still can. '
    "Give root a password with: passwd root",
)


class Place(NamedTuple):
    """A tomb's place, as who logs in would meet it."""

    config: TombConfig
    mode: Absent
    is_open: bool


def texts(places: Iterable[Place], abandoned: Iterable[str] = ()) -> tuple[str, str]:
    """The message of the day, and that of a refusal; empty where there is nothing to say. Pure.

    `abandoned` are the places of volatile homes without a tomb.
    """
    away = [place for place in places if not place.is_open]
    motd = [absent.announcement(p.config) for p in away if p.mode is Absent.VOLATILE]
    motd += map(absent.reminder, abandoned)
    refusal = [absent.refusal(p.config) for p in away if p.mode is Absent.NOLOGIN]
    return "\n".join(motd), "\n".join(refusal)


class Announcements:
    """Keeps both files as they are to be, for as long as the daemon runs.

    The one at /run/nologin is put back when it goes: systemd-user-sessions(8) removes
    whatever is there when it starts, to end the refusal that held during boot.
    """

    def __init__(
        self,
        changed: Callable[[], None],
        *,
        motd: str = MOTD,
        nologin: str = NOLOGIN,
        ours: str = OURS,
    ) -> None:
        self.problem: Problem | None = None
        self._changed = changed
        self._motd, self._nologin, self._ours = motd, nologin, ours
        self._log = log.get()
        self._refusal = ""
        self._told: tuple[str, str] | None = None
        self._watch: asyncio.Task[None] | None = None

    def follow(self, places: Iterable[Place], abandoned: Iterable[str] = ()) -> None:
        """Tell people what is so now."""
        if (told := texts(places, abandoned)) == self._told:
            return
        self._told = told
        try:
            _publish(self._motd, told[0])
            self._refuse(told[1])
        except OSError as error:
            self._log.warning(f"The messages at login could not be written: {error}")

    def look_again(self) -> None:
        """What was decided may have another reason now."""
        self._told = None

    def close(self) -> None:
        """Watch no more; the files stay."""
        if self._watch:
            self._watch.cancel()

    def _refuse(self, text: str) -> None:
        if refused := bool(text) and not rootlogin.possible():
            text = ""
        self._refusal = text
        if text:
            _lock(self._nologin, self._ours, text)
            if self._watch is None or self._watch.done():
                self._watch = asyncio.get_running_loop().create_task(self._keep(), name="nologin")
        else:
            self.close()
            _unlock(self._nologin, self._ours)
        problem = NO_ROOT if refused else None
        if problem != self.problem:
            self.problem = problem
            self._changed()

    async def _keep(self) -> None:
        removed = Appearance(self._nologin, IN_DELETE | IN_MOVED_FROM | IN_ONLYDIR)
        try:
            while True:
                removed.forget()
                # It may have gone before there was a watch.
                _lock(self._nologin, self._ours, self._refusal)
                await removed.wait()
        except OSError as error:
            self._log.warning(f"{self._nologin} cannot be kept in place: {error}")
        finally:
            removed.close()


def _publish(path: str, text: str) -> None:
    """The file with this text, whole at any time; none for none."""
    if not text:
        with suppress(FileNotFoundError):
            os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    aside = f"{path}.new"
    with open(
        os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644), "w"
    ) as f:
        f.write(text)
    os.rename(aside, path)


def _is_ours(path: str, ours: str) -> bool:
    try:
        return os.path.samefile(path, ours)
    except FileNotFoundError:
        return False


def _lock(path: str, ours: str, text: str) -> None:
    """Refuse logins with `text`, unless somebody else refuses them with a text of their own."""
    if _is_ours(path, ours):
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            if file.read() == text:
                return
        _unlock(path, ours)
    _publish(ours, text)
    with suppress(FileExistsError):
        os.link(ours, path)


def _unlock(path: str, ours: str) -> None:
    """Refuse logins no more; what is not ours stays."""
    if _is_ours(path, ours):
        os.unlink(path)
    with suppress(FileNotFoundError):
        os.unlink(ours)
