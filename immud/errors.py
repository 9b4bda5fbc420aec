"""Errors that carry data, each with one name on the bus and one exit code.

Only `main` exits and only the bus server turns an error into a reply; everything
between raises.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself takes longer to import than the rest of a small command
if TYPE_CHECKING:
    from typing import ClassVar


class ImmudError(Exception):
    """The operation failed, and the text says why and what to do next."""

    name: ClassVar[str] = "Failed"
    exit_code: ClassVar[int] = 1

    @property
    def bus_name(self) -> str:
        return f"org.immud1.Error.{self.name}"


class UsageError(ImmudError):
    """The command line makes no sense."""

    name = "InvalidArguments"
    exit_code = 2


class Unreachable(ImmudError):
    """No daemon answers on the bus."""

    name = "Unreachable"
    exit_code = 3


class NotAuthorized(ImmudError):
    """polkit said no."""

    name = "NotAuthorized"
    exit_code = 4


class InteractiveAuthorizationRequired(NotAuthorized):
    """polkit would have to ask, and the caller did not allow that.

    The D-Bus specification itself names this error, beside the flag that avoids it.
    """

    name = "InteractiveAuthorizationRequired"

    @property
    def bus_name(self) -> str:
        return f"org.freedesktop.DBus.Error.{self.name}"


class ConfigError(ImmudError):
    """A configuration file is wrong: which one, where, and what would be accepted."""

    name = "InvalidConfiguration"

    def __init__(self, text: str, *, file: str = "", line: int = 0, key: str = "") -> None:
        place = f"{file}:{line}" if line else file
        super().__init__(": ".join(part for part in (place, key, text) if part))
        self.file, self.line, self.key = file, line, key


class TargetExists(ImmudError):
    """Something that is not ours is where a directory would have to go."""

    name = "TargetExists"


class OtherFileSystem(ImmudError):
    """The exchange needs one file system, and these are two."""

    name = "OtherFileSystem"


class NoSuchTomb(ImmudError):
    """No tomb of that name is configured."""

    name = "NoSuchTomb"


class NoSuchJob(ImmudError):
    """That job has ended, or never was."""

    name = "NoSuchJob"


class WrongState(ImmudError):
    """The tomb is not in a state in which this can be done."""

    name = "WrongState"


class WrongVolume(ImmudError):
    """The drive answers to the name, but is not the enrolled one."""

    name = "WrongVolume"


class DamagedVolume(ImmudError):
    """The file system on the volume cannot be mounted as it was asked for."""

    name = "DamagedVolume"


class WrongKey(ImmudError):
    """The passphrase or the key file is not one of the volume's."""

    name = "WrongKey"


class Busy(ImmudError):
    """Processes are in the way; the text names them."""

    name = "Busy"


class Cancelled(ImmudError):
    """The job was cancelled."""

    name = "Cancelled"
