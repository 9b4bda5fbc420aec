"""org.immud1.Lease: / and /usr, writable for one command, while it is so."""

from collections.abc import Awaitable, Callable
from typing import Any

from immud.bus.adapter import Call, variant
from immud.bus.vtable import Emits, Interface, Method, Property
from immud.lease.record import Record

NAME = "org.immud1.Lease"


def interface(
    lease: Record,
    concerns: Callable[[Call, Record], Awaitable[None]],
    end: Callable[[Call, Record], Awaitable[None]],
) -> Interface:
    """`concerns` raises NotAuthorized for a caller who is neither root nor has the lease."""

    async def describe(call: Call) -> dict[str, Any]:
        await concerns(call, lease)
        return {
            "Who": variant("u", lease.who),
            "Why": variant("s", lease.why),
            "Since": variant("t", lease.since),
            "Until": variant("t", lease.until),
            "Command": variant("as", list(lease.command)),
            "Unit": variant("s", lease.unit),
            "Pid": variant("u", lease.pid),
        }

    async def finish(call: Call) -> None:
        await end(call, lease)

    constant: tuple[tuple[str, str, Any, str], ...] = (
        ("Id", "s", lease.id, ""),
        ("Who", "u", lease.who, "The user id of who asked for it."),
        ("Why", "s", lease.why, "The reason that was given."),
        ("Since", "t", lease.since, "CLOCK_REALTIME, microseconds."),
        ("Unit", "s", lease.unit, "The service it ends with."),
        ("Trial", "b", lease.trial, "Whether nothing written to /usr stays: it is an image."),
    )
    return Interface(
        NAME,
        Method(
            "Describe",
            describe,
            gives=("a{sv} lease",),
            doc="All of it, also Until (CLOCK_REALTIME, microseconds; 0: no limit) and Command. "
            "For root and who has the lease.",
        ),
        Method("End", finish, doc="End it now, and all that runs in it."),
        *(
            Property(name, kind, _always(value), emits=Emits.CONSTANT, doc=doc)
            for name, kind, value, doc in constant
        ),
    )


def _always(value: Any) -> Callable[[], Any]:
    return lambda: value
