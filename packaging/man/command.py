"""Prints immud(1), made from the table the command line itself is made from."""

from roff import escape

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
What concerns the running daemon is asked of it over D-Bus, as
.BR org.immud1 ;
plan, enable, disable, adopt, release and tomb work without one.
.SH COMMANDS
"""

TAIL = """\
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
.SH FILES
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


print(HEAD.format(version=immud.__version__) + "".join(map(section, COMMANDS)) + TAIL, end="")
