"""Prints org.immud1(5), made from the tables that introspection on the bus is made from."""

from typing import Any

from roff import escape

from immud.bus import finding, job, lease, manager, mount, tomb
from immud.bus.vtable import Emits, Interface, Method, Property, Signal

HEAD = """\
.TH ORG.IMMUD1 5 "" "immud" "File Formats Manual"
.SH NAME
org.immud1 \\- the state of an immutable system, and its tombs, on D\\-Bus
.SH DESCRIPTION
.B immud.service
owns the name
.B org.immud1
on the system bus.
Everybody may read; what changes something asks polkit: who sits at the machine may open and
close tombs
.RB ( org.immud1.manage\\-tombs ),
all else is for administrators
.RB ( org.immud1.manage\\-system ).
Options in
.I a{sv}
that are not known are an error.
.PP
What is different tells so by
.BR PropertiesChanged ,
and objects that come and go by the
.B ObjectManager
of /org/immud1.
.B org.freedesktop.LogControl1
is on /org/freedesktop/LogControl1, and sets the log level of the running daemon.
"""

TAIL = """\
.SH ERRORS
Failures have the names org.immud1.Error.*, and a sentence that says what to do next.
.SH EXAMPLES
.nf
busctl tree org.immud1
busctl get\\-property org.immud1 /org/immud1 org.immud1.Manager State UsrReadOnly
busctl call org.immud1 /org/immud1/tomb/home org.immud1.Tomb Open \\(aqa{sv}\\(aq 0
busctl monitor org.immud1
.fi
.SH SEE ALSO
.BR immud (1),
.BR immud.service (8),
.BR busctl (1)
"""

CHANGES = {
    Emits.VALUE: "",
    Emits.INVALIDATES: "Changes are told without the value.",
    Emits.CONSTANT: "Never changes.",
    Emits.NEVER: "Changes are not told.",
}


class Anything:
    """Stands in for what the interfaces are about: only their tables are wanted."""

    def __getattr__(self, _name: str) -> Any:
        return self

    def __call__(self, *_arguments: Any) -> Any:
        return self


def arguments(pairs: tuple[str, ...]) -> str:
    """Arguments as `type name`, the type in italics."""
    split = (pair.split() for pair in pairs)
    return ", ".join(f"\\fI{escape(kind)}\\fR {escape(name)}" for kind, name in split)


def entry(member: Method | Property | Signal) -> str:
    """The page's words on one member."""
    name, said = escape(member.name), [member.doc]
    if isinstance(member, Method):
        gives = f" \\(-> {arguments(member.gives)}" if member.gives else ""
        head = f"\\fB{name}\\fR({arguments(member.takes)}){gives}"
        said += [f"Authorised by {member.action}."] if member.action else []
    elif isinstance(member, Signal):
        head = f"\\fB{name}\\fR({arguments(member.arguments)}), a signal"
    else:
        access = "" if member.set is None else ", writable"
        head = f"\\fB{name}\\fR: \\fI{escape(member.signature)}\\fR{access}"
        said += [CHANGES[member.emits]]
    text = " ".join(escape(sentence) for sentence in said if sentence)
    return f".TP\n{head}\n{text or chr(92) + '&'}\n"


def section(path: str, interface: Interface) -> str:
    """The page's words on the interface that objects at `path` have."""
    head = f".SH {escape(interface.name.upper())}\nThe interface of {escape(path)}.\n"
    return head + "".join(map(entry, interface.members))


any_one: Any = Anything()
INTERFACES = (
    ("/org/immud1", manager.interface(any_one, any_one)),
    ("/org/immud1/mount/NAME, one for each mount immud answers for", mount.interface(any_one)),
    ("/org/immud1/tomb/NAME, one for each configured tomb", tomb.interface(any_one, any_one)),
    ("/org/immud1/job/NUMBER, one for each job that runs", job.interface(any_one, any_one)),
    (
        "/org/immud1/lease/ID, one for each lease",
        lease.interface(any_one, any_one, any_one),
    ),
    ("/org/immud1/finding/NUMBER, one for each finding", finding.interface(any_one)),
)

print(HEAD + "".join(section(path, interface) for path, interface in INTERFACES) + TAIL, end="")
