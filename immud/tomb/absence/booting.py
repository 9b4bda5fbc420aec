"""What the boot itself mounts where a tomb goes, which comes first.

systemd takes a unit for mounted as soon as anything is mounted at its place. So a tomb, or a
fallback, that got there before a disk of fstab that is being checked would keep that disk out.
Where something is mounted already nothing is coming.
"""

from functools import partial

from immud import log
from immud.bus.adapter import Connection
from immud.early import mountinfo
from immud.errors import Unreachable
from immud.systemd import PRIVATE, Systemd, escape

# PID 1 gets this long to take up the connection, seconds.
ACCEPTED = 5.0


async def mounted(tomb: str, target: str) -> None:
    """Wait until systemd has mounted all it is about to mount at `target` and above, or could not.

    Asked over PID 1's own socket, since there may be no bus yet. Where it does not answer,
    nothing is waited for.
    """
    table = mountinfo.read()
    asked = [unit for path in up_to(target) if not mountinfo.top(table, path) for unit in of(path)]
    if not asked:
        return
    try:
        connection = await Connection.open(PRIVATE, timeout=ACCEPTED, direct=True)
    except (OSError, TimeoutError):
        return
    systemd = Systemd(lambda: connection)
    try:
        for unit in asked:
            await systemd.settled(unit, partial(_say, tomb, unit))
    except Unreachable:
        return
    finally:
        connection.close()


def _say(tomb: str, unit: str) -> None:
    text = f"Tomb {tomb} waits for {unit}, which systemd starts; see: systemctl list-jobs"
    log.get(tomb=tomb).notice(text)


def up_to(path: str) -> tuple[str, ...]:
    """The directories on the way to a path and the path itself, the outermost first."""
    names = path.strip("/").split("/")
    return tuple("/" + "/".join(names[: at + 1]) for at in range(len(names)))


def of(path: str) -> tuple[str, str]:
    """The units that mount something at a path (systemd.mount(5), systemd.automount(5))."""
    name = escape(path.strip("/"))
    return f"{name}.mount", f"{name}.automount"
