"""Prints immud(1), made from the table the command line itself is made from and the catalog."""

import re

from roff import TREE, escape

import immud
from immud.cli.command import Argument, Command
from immud.cli.parser import COMMANDS

HEAD = """\
.TH IMMUD 1 "" "immud {version}" "User Commands"
.SH NAME
immud \\- make this system immutable, and open encrypted drives with people's data
.SH SYNOPSIS
.B immud
.I COMMAND
.RI [ OPTION ...]
.RI [ ARGUMENT ...]
.SH DESCRIPTION
immud keeps / and /usr read-only and people's data in tombs, encrypted drives that are opened
when they are plugged in.
status, verify, watch, open, close and eject ask the running daemon over D-Bus, as
.BR org.immud1 ;
all other commands work without it.
.SH OPTIONS
.TP
.BR \\-h ", " \\-\\-help
Print the commands, or the arguments of one.
.TP
.B \\-\\-version
Print the version.
.SH COMMANDS
"""

TAIL = """\
.SH ADOPTION
A directory of the layout with something in it is never moved at boot: it stays where it is, stays
writable, and is reported as
.B unadopted
until
.B immud adopt
is run.
On one file system that is one atomic exchange for each path.
.PP
Where /var is another file system, or another btrfs subvolume, the directory is copied to a hidden
place next to its target, compared byte by byte, and only then exchanged with the link.
Nobody may work in it meanwhile: run it from a login as root.
A copy for which there is no room is not begun, and one that was interrupted is resumed by the next
run.
The original stays, as
.I /home.immud\\-adopted
for /home, until
.BR "immud adopt \\-\\-finish" .
.B immud release
copies back in the same way.
.PP
A path such as /home that has a file system of its own by a line of
.BR fstab (5)
is mounted at /var/home instead: the line gets the new mount point, and the old line stays before it
as a comment, until
.B immud release
restores it.
Where a unit of yours mounts it, or systemd does by itself because of the partition's GPT type,
adopt refuses and prints the commands that change that.
.PP
A path whose
.B kind
was changed in the configuration, from link to bind or back, is switched by
.BR "immud adopt" ,
without a copy.
.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
The operation failed.
.TP
.B 2
Wrong usage.
.TP
.B 3
The daemon cannot be reached.
.TP
.B 4
Not authorised.
.PP
That of
.B immud unlock
is the command's, 127 if there is no such command, and
.BR pkexec (1)'s
where that asked in vain.
.SH ENVIRONMENT
.TP
.B NO_COLOR
If it is set and not empty, nothing is printed in colour.
.TP
.B IMMUD_LEASE
Set by
.B immud unlock
for its command: the id of the lease.
It is not set where no lease was needed, because / and /usr are writable.
.SH METRICS
What
.B immud verify \\-\\-metrics
writes, as OpenMetrics text:
.TP
.B immud_up
1 if the daemon answered, 0 if not.
.TP
.B immud_intact
1 if everything protected is as the boot left it, 0 if not; left out where that is not known.
.TP
.BR immud_findings { kind , path }
How many findings of this kind there are for this path.
.TP
.B immud_findings_now
How many findings there are; left out, as is immud_findings, where not everything could be looked
at.
.TP
.B immud_verified_timestamp_seconds
When the file was written.
.SH MESSAGES
What immud writes to the journal can be found by its MESSAGE_ID, as in
.BR "journalctl MESSAGE_ID=" \\fIID\\fR,
and is explained by
.BR "journalctl \\-x" .
{messages}.SH FILES
.TP
.I /etc/immud/immud.toml
The configuration, see
.BR immud.toml (5).
.TP
.I /etc/immud/boot.plan
What the next boot will do, compiled by
.BR "immud enable" .
.TP
.IR /etc/immud/immud.toml.d/tomb\\- NAME .toml
What
.B immud tomb create
and
.B immud tomb enrol
write: the table of a tomb.
.TP
.IR /etc/immud/tombs/ NAME .json
Which volume a tomb is, so that no other is opened in its place.
.TP
.I /run/immud
Facts of this boot.
.SH SEE ALSO
.BR immud.toml (5),
.BR immud.service (8),
.BR org.immud1 (5),
.BR cryptsetup (8),
.BR systemd\\-cryptenroll (1),
.BR busctl (1),
.BR journalctl (1)
"""


def usage(argument: Argument) -> str:
    """How an option or argument is written on the command line."""
    flags, options = argument
    if not flags[0].startswith("-"):
        name = f"\\fI{options['metavar']}\\fR"
        if options.get("nargs") == "*":
            return f"[{name}...]"
        return f"[{name}]" if "nargs" in options else name
    value = f" \\fI{options['metavar']}\\fR" if "metavar" in options else ""
    return f"[\\fB{escape(flags[-1])}\\fR{value}]"


def messages() -> str:
    """The journal's messages, as the catalog has them; a name in capitals is that of a field."""
    text = (TREE / "units/immud.catalog").read_text(encoding="utf-8")
    text = re.sub("@IMMUD_([A-Z]+)@", r"\1", text)
    found = re.findall(r"^-- ([0-9a-f]{32})\nSubject: (.+)$", text, re.MULTILINE)
    return "".join(f".TP\n.B {number}\n{escape(subject)}.\n" for number, subject in found)


def section(command: Command, before: str = "immud") -> str:
    """What the page says of one command, which comes after `before`, and of those after it."""
    name = f"{before} {command.name}"
    lines = [f".SS {name} " + " ".join(usage(a) for a in command.arguments)]
    lines.append(escape(command.description))
    for flags, options in command.arguments:
        names = ", ".join(f"\\fB{escape(flag)}\\fR" for flag in flags)
        if not flags[0].startswith("-"):
            names = f"\\fI{options['metavar']}\\fR"
        elif "metavar" in options:
            names += f" \\fI{options['metavar']}\\fR"
        lines += [".TP", names, escape(options["help"][0].upper() + options["help"][1:]) + "."]
    inner = "".join(section(each, name) for each in command.commands)
    return "\n".join(lines) + "\n" + inner


print(
    HEAD.format(version=immud.__version__)
    + "".join(map(section, COMMANDS))
    + TAIL.replace("{messages}", messages()),
    end="",
)
