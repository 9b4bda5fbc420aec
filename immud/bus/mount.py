"""org.immud1.Mount: a mount immud is responsible for."""

from collections.abc import Callable

from immud.bus.vtable import Emits, Interface, Property
from immud.model import MountFact

NAME = "org.immud1.Mount"


def interface(fact: Callable[[], MountFact]) -> Interface:
    """`fact` gives the mount as the kernel shows it now."""
    return Interface(
        NAME,
        Property("Where", "s", lambda: fact().where, emits=Emits.CONSTANT, doc="The mount point."),
        Property("What", "s", lambda: fact().what, doc="What is mounted there."),
        Property("FsType", "s", lambda: fact().fstype, doc="The file system type."),
        Property("Options", "s", lambda: fact().options, doc="As in /proc/self/mountinfo."),
        Property("ReadOnly", "b", lambda: fact().read_only, doc="Whether writing gives EROFS."),
        Property(
            "State",
            "s",
            lambda: fact().state,
            doc="mounted, missing, writable (and is to be read-only), read-only (and is to be "
            "writable) or elsewhere (it does not show the configured source).",
        ),
        Property("Unit", "s", lambda: "", emits=Emits.CONSTANT, doc="Empty: it is no unit's."),
        Property(
            "LastError",
            "s",
            lambda: "",
            emits=Emits.CONSTANT,
            doc="Empty: what is wrong is one of the manager's Problems.",
        ),
    )
