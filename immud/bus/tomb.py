"""org.immud1.Tomb: an encrypted drive somebody can carry away."""

from collections.abc import Callable, Mapping
from typing import Any

from immud.bus import options, polkit
from immud.bus.adapter import Call
from immud.bus.secret import read_secret
from immud.bus.vtable import Emits, Interface, Method, Property
from immud.service import Job, Tomb

NAME = "org.immud1.Tomb"
Started = Callable[[Job], str]

OPEN_DOC = (
    "Unlock, check and mount. Options: passphrase-fd (h), a pipe, socket or memfd holding the "
    "passphrase; without it the key file or the ask-password agents are used; read-only (b), "
    "nothing is written to it, not even by a checker. Returns a job."
)
CLOSE_DOC = (
    "Unmount and lock. Options: force (b), end the processes in the way; without it they are "
    "named and nothing happens. Returns a job."
)
EJECT_DOC = "Close, and power the drive down so that it can be pulled. Options as for Close."


def interface(tomb: Tomb, started: Started) -> Interface:
    """`started` publishes a job and returns its path."""

    async def open_tomb(call: Call, given: Mapping[str, Any]) -> str:
        values = options.parse(given, {"passphrase-fd": "h", "read-only": "b"})
        index = values.pop("passphrase-fd", None)
        passphrase = None if index is None else await read_secret(call.take_fd(index))
        return started(tomb.open(call.uid, values, passphrase))

    def close_tomb(call: Call, given: Mapping[str, Any]) -> str:
        return started(tomb.close(call.uid, options.parse(given, {"force": "b"})))

    def eject_tomb(call: Call, given: Mapping[str, Any]) -> str:
        return started(tomb.eject(call.uid, options.parse(given, {"force": "b"})))

    def method(name: str, function: Callable[..., Any], doc: str, fds: int = 0) -> Method:
        return Method(
            name,
            function,
            takes=("a{sv} options",),
            gives=("o job",),
            action=polkit.MANAGE_TOMBS,
            fds=fds,
            doc=doc,
        )

    return Interface(
        NAME,
        method("Open", open_tomb, OPEN_DOC, fds=1),
        method("Close", close_tomb, CLOSE_DOC),
        method("Eject", eject_tomb, EJECT_DOC),
        Property("Name", "s", lambda: tomb.view.name, emits=Emits.CONSTANT),
        Property("UUID", "s", lambda: tomb.view.uuid, doc="The UUID in the LUKS header."),
        Property("Label", "s", lambda: tomb.view.label, doc="The label in the LUKS header."),
        Property("Device", "s", lambda: tomb.view.device, doc="The block device, if plugged in."),
        Property("Mapper", "s", lambda: tomb.view.mapper, doc="The open mapping, if any."),
        Property(
            "State",
            "s",
            lambda: tomb.view.state,
            doc="absent, present, unlocking, checking, open, closing, lost, failed or ambiguous.",
        ),
        Property("MountPoint", "s", lambda: tomb.view.mount_point),
        Property("AutoOpen", "b", lambda: tomb.view.auto_open, doc="Whether plugging in opens it."),
        Property("FsType", "s", lambda: tomb.view.fs_type, doc="Its file system, while open."),
        Property(
            "ReadOnly",
            "b",
            lambda: tomb.view.read_only,
            doc="Whether it is open and cannot be written to: asked for, or because of errors.",
        ),
        Property("LastError", "s", lambda: tomb.view.last_error, doc="What went wrong last."),
        Property(
            "Absent",
            "s",
            lambda: tomb.view.absent,
            doc="What its place is while it is away: directory, volatile or nologin.",
        ),
    )
