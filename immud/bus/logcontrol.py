"""org.freedesktop.LogControl1, which `systemctl log-level immud debug` speaks.

See org.freedesktop.LogControl1(5); the path and the missing change signals are its.
"""

from immud import log
from immud.bus import polkit
from immud.bus.adapter import BusError
from immud.bus.standard import INVALID_ARGS
from immud.bus.vtable import Emits, Interface, Property

NAME = "org.freedesktop.LogControl1"
PATH = "/org/freedesktop/LogControl1"


def interface() -> Interface:
    """Controls `log.sink`."""

    def set_level(value: str) -> None:
        levels = {level.label: level for level in log.Level}
        if value not in levels:
            raise BusError(INVALID_ARGS, f"A log level is one of {', '.join(levels)}.")
        log.sink.level = levels[value]

    def set_target(value: str) -> None:
        targets = [target.value for target in log.Target]
        if value not in targets:
            raise BusError(INVALID_ARGS, f"A log target is one of {', '.join(targets)}.")
        log.sink.target = log.Target(value)

    return Interface(
        NAME,
        Property(
            "LogLevel",
            "s",
            lambda: log.sink.level.label,
            set=set_level,
            action=polkit.MANAGE_SYSTEM,
            emits=Emits.NEVER,
            doc="The least important syslog(3) level that is logged.",
        ),
        Property(
            "LogTarget",
            "s",
            lambda: log.sink.target,
            set=set_target,
            action=polkit.MANAGE_SYSTEM,
            emits=Emits.NEVER,
            doc="auto, journal or console.",
        ),
        Property("SyslogIdentifier", "s", lambda: log.IDENTIFIER, emits=Emits.CONSTANT),
    )
