"""org.immud1.Finding: something protected that is not as this boot left it, while it is so."""

from collections.abc import Callable, Mapping
from typing import Any

from immud.bus.adapter import variant
from immud.bus.vtable import Emits, Interface, Property
from immud.model import Finding

NAME = "org.immud1.Finding"

KIND_DOC = "writable, unmounted, over-mounted, superblock, link, new-mount, way-in or tomb-options."
BY_DOC = (
    "What Pid, Command and Unit are: author, who did it; inside, a process in that mount "
    "namespace; empty where the kernel does not tell."
)

_MEMBERS: tuple[tuple[str, str, Callable[[Finding], Any], Emits, str], ...] = (
    ("Id", "u", lambda f: f.id, Emits.CONSTANT, ""),
    ("Kind", "s", lambda f: str(f.kind), Emits.CONSTANT, KIND_DOC),
    ("Path", "s", lambda f: f.path, Emits.CONSTANT, ""),
    ("Expected", "s", lambda f: f.expected, Emits.VALUE, "What is to be."),
    ("Actual", "s", lambda f: f.actual, Emits.VALUE, "What is."),
    ("Text", "s", lambda f: f.text, Emits.VALUE, "A sentence for people."),
    (
        "Namespace",
        "t",
        lambda f: f.namespace,
        Emits.CONSTANT,
        "Inode number of the mount namespace it is seen in; 0 for the system's own.",
    ),
    ("Since", "t", lambda f: f.since, Emits.CONSTANT, "CLOCK_REALTIME, microseconds."),
    (
        "SinceMonotonic",
        "t",
        lambda f: f.since_monotonic,
        Emits.CONSTANT,
        "CLOCK_MONOTONIC, microseconds.",
    ),
    ("By", "s", lambda f: f.by, Emits.VALUE, BY_DOC),
    ("Pid", "u", lambda f: f.pid, Emits.VALUE, "0 where it is not known."),
    ("Command", "s", lambda f: f.command, Emits.VALUE, ""),
    ("Unit", "s", lambda f: f.unit, Emits.VALUE, ""),
)


def interface(finding: Callable[[], Finding]) -> Interface:
    """`finding` gives it as it is now."""

    def getter(get: Callable[[Finding], Any]) -> Callable[[], Any]:
        return lambda: get(finding())

    return Interface(
        NAME,
        *(
            Property(name, signature, getter(get), emits=emits, doc=doc)
            for name, signature, get, emits, doc in _MEMBERS
        ),
    )


def properties(finding: Finding) -> Mapping[str, Any]:
    """All of it, as Verify returns it."""
    return {name: variant(signature, get(finding)) for name, signature, get, *_ in _MEMBERS}
