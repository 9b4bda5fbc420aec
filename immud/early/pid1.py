"""Telling PID 1 that its ground has moved: in a short-lived child, over its private socket.

pystemd brings lxml and holds the interpreter's lock while it waits, so it never
enters this process. The bus is not up yet.
"""

import os
import select
import sys

from immud.early.process import command
from immud.early.steps import Problem

# Comes after the target that this boot is to end with: the default one, and what the kernel
# command line names, which immud-generator has read.
_LAST = b"immud-boot-complete.service"


def call(what: str, seconds: int) -> list[Problem]:
    """Run `tell(what)` in a child for at most `seconds`; what went wrong, if anything."""
    try:
        pid = os.posix_spawn(command()[0], command("pid1", what), os.environ)
    except OSError as error:
        return [_problem(what, str(error))]
    pidfd = os.pidfd_open(pid)
    ready, _, _ = select.select([pidfd], [], [], seconds)
    os.close(pidfd)
    if not ready:
        os.kill(pid, 9)
    _, status = os.waitpid(pid, 0)
    if ready and status == 0:
        return []
    return [_problem(what, "it failed" if ready else f"it took more than {seconds} s")]


def _problem(what: str, why: str) -> Problem:
    text = f"PID 1 was asked to {what} and did not: {why}; reboot, or run 'systemctl daemon-{what}'"
    return ("error", f"pid1-{what}", text, ())


def tell(what: str) -> None:
    """Reload or re-execute PID 1, then queue what the new /etc adds to this boot.

    A reload reads new units but starts none; asking again for the target that the
    boot is to end with does, as initrd-parse-etc.service has it after switching to a new /etc.
    """
    from contextlib import suppress  # noqa: PLC0415 - only in the child

    from pystemd.dbusexc import DBusBaseError  # type: ignore[import-untyped]  # noqa: PLC0415
    from pystemd.dbuslib import DBusAddress  # type: ignore[import-untyped]  # noqa: PLC0415
    from pystemd.systemd1 import Manager, Unit  # type: ignore[import-untyped]  # noqa: PLC0415

    def connect() -> DBusAddress:
        return DBusAddress(b"unix:path=/run/systemd/private", peer_to_peer=True)

    with connect() as bus, Manager(bus=bus) as manager:
        if what == "reload":
            manager.Manager.Reload()
        else:
            with suppress(DBusBaseError):  # it answers by closing the connection
                manager.Manager.Reexecute()
    with connect() as bus, Manager(bus=bus) as manager, Unit(_LAST, bus=bus) as last:
        queued = {job[1] for job in manager.Manager.ListJobs() if job[2] == b"start"}
        for unit in queued.intersection(last.Unit.After):
            if unit.endswith(b".target"):
                manager.Manager.StartUnit(unit, b"replace")


def system_state() -> str:
    """What `systemctl is-system-running` says, over the private socket: dbus may be gone."""
    from pystemd.dbuslib import DBusAddress  # noqa: PLC0415
    from pystemd.systemd1 import Manager  # noqa: PLC0415

    address = b"unix:path=/run/systemd/private"
    with DBusAddress(address, peer_to_peer=True) as bus, Manager(bus=bus) as manager:
        state: bytes = manager.Manager.SystemState
        return state.decode()


def main() -> None:
    """`daemon pid1 reload` or `daemon pid1 reexec`."""
    tell(sys.argv[2])
