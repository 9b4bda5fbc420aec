"""User managers that outlive their user's last session, and stand in a tomb's way.

user@.service goes on for ten seconds after the last session, and for ever where the
user lingers (logind.conf(5), loginctl(1)). Nobody sits in front of it: it is stopped
rather than waited for, and a lingering one started again on what has come meanwhile.
"""

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress

from immud import log
from immud.bus.adapter import BusError, Connection, Disconnected
from immud.errors import ImmudError, Unreachable
from immud.systemd import Systemd

NAME = "org.freedesktop.login1"
PATH = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"
USER = "org.freedesktop.login1.User"
# Those to be started again, a file each: who stopped them may not live to do it.
STOPPED = "/run/immud/stopped-managers"
# What user@.service has for a bus activated client to end in, and somewhat more; seconds.
STOP_TIMEOUT = 100.0

_UNIT = re.compile(r"user@([0-9]+)\.service")


def owner(cgroup: str) -> int | None:
    """The user whose manager a control group belongs to, or None where it is nobody's."""
    found = (_UNIT.fullmatch(part) for part in cgroup.split("/"))
    return next((int(match[1]) for match in found if match), None)


class UserManagers:
    """`connection` gives the current one to the system bus, or None while there is none."""

    def __init__(self, connection: Callable[[], Connection | None]) -> None:
        self._connection = connection
        self._systemd = Systemd(connection)
        self._log = log.get()

    async def stop_abandoned(self, cgroups: Iterable[str]) -> bool:
        """Stop the managers among these control groups whose users have no session.

        Returns whether any was. What nobody answers for is left alone.
        """
        stopped = False
        for uid in {owner(cgroup) for cgroup in cgroups} - {None}:
            assert uid is not None
            state = await self._state(uid)
            if state not in ("lingering", "closing"):
                continue
            if state == "lingering":
                os.makedirs(STOPPED, exist_ok=True)
                with open(f"{STOPPED}/{uid}", "wb"):
                    pass
            try:
                await self._systemd.stop_unit(f"user@{uid}.service", timeout=STOP_TIMEOUT)
            except ImmudError as error:
                self._log.warning(f"Could not stop the manager of user {uid}: {error}")
            else:
                self._log.info(f"Stopped the manager of user {uid}, who has no session.")
                stopped = True
        return stopped

    async def start_again(self) -> None:
        """Start the managers of lingering users again that were stopped."""
        with suppress(FileNotFoundError):
            for uid in os.listdir(STOPPED):
                try:
                    await self._systemd.start_unit(f"user@{uid}.service")
                except Unreachable:
                    continue
                except ImmudError as error:
                    self._log.warning(f"Could not restart the manager of user {uid}: {error}")
                os.unlink(f"{STOPPED}/{uid}")

    async def _state(self, uid: int) -> str:
        """logind's word for a user: `lingering`, `closing`, `active`… or nothing."""
        connection = self._connection()
        if connection is None:
            return ""
        try:
            (path,) = await connection.call(NAME, PATH, MANAGER, "GetUser", "u", uid)
            (state,) = await connection.call(
                NAME, path, "org.freedesktop.DBus.Properties", "Get", "ss", USER, "State"
            )
        except (BusError, Disconnected, TimeoutError) as error:
            self._log.debug(f"logind did not answer about user {uid}: {error}")
            return ""
        return str(state)
