"""What the command line accepts: one table, from which the parser is built.

Man pages and completions are made from the same table.
"""

import argparse

from immud import __version__
from immud.cli.command import DRY_RUN, JSON, Argument, Command
from immud.cli.tomb_commands import TOMB

ROOT: Argument = (
    ("--root",),
    {"metavar": "DIR", "default": "/", "help": "work on the system in DIR instead of this one"},
)
PATHS: Argument = (
    ("paths",),
    {"metavar": "PATH", "nargs": "*", "help": "a path of the layout such as /home; default: all"},
)
NAME: Argument = (
    ("name",),
    {"metavar": "NAME", "nargs": "?", "default": "home", "help": "the tomb; default: home"},
)

COMMANDS = (
    Command(
        "status",
        "show the state, and what to do about problems",
        "Shows the state of the system, its problems and what to do about them, and the mounts, "
        "links and tombs that immud looks after.",
        "status",
        "status",
        (JSON,),
    ),
    Command(
        "verify",
        "check that nothing protected was tampered with",
        "Has the daemon check everything the tripwire watches, including file systems and mount "
        "namespaces that announce nothing, and prints what is not as this boot left it. Exits "
        "with 1 if there is such a finding, or if not everything could be checked. With --fix, "
        "restores mounts and links first. What --metrics writes is for node_exporter's "
        "textfile collector; the file is replaced in one step.",
        "verify",
        "verify",
        (
            JSON,
            (
                ("--fix",),
                {"action": "store_true", "help": "restore what can be restored, then check"},
            ),
            (
                ("--metrics",),
                {"metavar": "FILE", "help": "write OpenMetrics text to FILE as well"},
            ),
        ),
    ),
    Command(
        "doctor",
        "explain everything that is in the way on this machine",
        "Explains, before and after enabling, what on this machine does not go well with an "
        "immutable system: what breaks, why, and the command that fixes it. Exits with 1 if "
        "something would keep a boot from completing, or from being immutable.",
        "doctor",
        "doctor",
        (
            JSON,
            (
                ("--fix",),
                {"action": "store_true", "help": "fix what can be fixed without a decision"},
            ),
        ),
    ),
    Command(
        "plan",
        "print the steps the next boot will perform",
        "Prints exactly the steps the next boot will perform, without performing any. What is in "
        "place already, because this boot did it, is not printed again.",
        "plan",
        "plan",
        (JSON, ROOT),
    ),
    Command(
        "enable",
        "check the system, and make it immutable from the next boot on",
        "Checks the system, compiles the configuration to the boot plan and enables the service. "
        "Nothing changes before the next boot. Running it again is harmless.",
        "enable",
        "enable",
        (
            ROOT,
            (
                ("--seed",),
                {
                    "action": "store_true",
                    "help": "copy /etc or /var to its configured source, where that is empty; "
                    "resumes a copy that was interrupted",
                },
            ),
            (
                ("--apt",),
                {
                    "metavar": "lease|refuse",
                    "choices": ("lease", "refuse"),
                    "default": "",
                    "help": "whether apt and dpkg take a lease by themselves to change packages, "
                    "or stop before they touch anything; default: unchanged, initially lease",
                },
            ),
        ),
    ),
    Command(
        "disable",
        "undo enable: the next boot is an ordinary one",
        "Undoes what enable did: the next boot is an ordinary one. Links stay, and are valid "
        "without immud; see immud release.",
        "enable",
        "disable",
        (ROOT,),
    ),
    Command(
        "adopt",
        "move directories to /var, behind links",
        "Moves the directories of the layout to /var and puts links in their places, each in one "
        "atomic exchange. Where /var is another file system they are copied instead and compared, "
        "while nobody may use them; run it again to resume an interrupted copy. The "
        "original is kept, as /home.immud-adopted for /home, until --finish.",
        "adopt",
        "adopt",
        (
            PATHS,
            DRY_RUN,
            JSON,
            (
                ("--finish",),
                {
                    "action": "store_true",
                    "help": "remove the originals of what was copied, and do nothing else",
                },
            ),
        ),
    ),
    Command(
        "release",
        "put adopted directories back",
        "Puts adopted directories back in the places of their links: the reverse of adopt. Where "
        "that takes a copy, the original is kept, as /var/home.immud-released for /var/home, until "
        "immud adopt --finish.",
        "adopt",
        "release",
        (PATHS, DRY_RUN, JSON),
    ),
    Command(
        "open",
        "unlock, check and mount a tomb",
        "Unlocks, checks and mounts a tomb. Asks for the passphrase where the tomb has no key "
        "file: on this terminal, or through the agents where there is none.",
        "tomb",
        "open_",
        (
            NAME,
            (
                ("--read-only",),
                {"action": "store_true", "help": "write nothing to it"},
            ),
        ),
    ),
    Command(
        "close",
        "unmount and lock a tomb",
        "Unmounts and locks a tomb. If processes are using it, names them and leaves it open.",
        "tomb",
        "close",
        (
            NAME,
            (
                ("--force",),
                {"action": "store_true", "help": "end the processes that are using it"},
            ),
        ),
    ),
    Command(
        "eject",
        "close a tomb, and make its drive safe to remove",
        "Closes a tomb and powers its drive down, so that it is safe to remove.",
        "tomb",
        "eject",
        (
            NAME,
            (
                ("--force",),
                {"action": "store_true", "help": "end the processes that are using it"},
            ),
        ),
    ),
    TOMB,
    Command(
        "unlock",
        "run one command that can write to / and /usr",
        "Runs one command for which / and /usr are writable, while everybody else keeps seeing "
        "them read-only. It runs here, with this terminal and environment, as root; when it ends, "
        "so does everything it has started, and its exit status is the one you get. Without a "
        "command, runs a shell. If you are not root, polkit asks you, through pkexec: of your "
        "environment the command then keeps only the terminal and the language, its PATH is "
        "root's, and the exit status is 126 if you dismiss the question and 127 if you are not "
        "authorised. The journal records who, when, and which files under /usr changed. Where "
        "/usr is an image, this is a trial: what is written to /usr, and to dpkg's database, is "
        "gone afterwards.",
        "unlock",
        "unlock",
        (
            (
                ("--for",),
                {
                    "metavar": "TIME",
                    "dest": "limit",
                    "default": "",
                    "help": "end it after this long, such as 90s, 10m or 1h30m; default: no limit. "
                    "Refused where nothing is read-only, since no lease is made there",
                },
            ),
            (
                ("--reason",),
                {"metavar": "TEXT", "default": "", "help": "why, for everybody to read"},
            ),
            (
                ("command",),
                {
                    "metavar": "COMMAND",
                    "nargs": argparse.REMAINDER,
                    "help": "the command and its arguments, behind --",
                },
            ),
        ),
    ),
    Command(
        "watch",
        "print changes as they happen",
        "Prints every change of state, mounts, links, tombs and jobs as it happens, until "
        "interrupted. With --json, a line of JSON for each.",
        "watch",
        "watch",
        (JSON,),
    ),
    Command(
        "debug",
        "collect what a bug report needs",
        "Prints versions, configuration, plan, state, mounts and the journal of immud: what a "
        "bug report needs. It contains no key and no passphrase, but names of drives and users: "
        "read it before you send it. Run as root, it contains more.",
        "debug",
        "debug",
        (
            (
                ("--output",),
                {
                    "metavar": "FILE",
                    "default": "",
                    "help": "write it to FILE, which must not exist",
                },
            ),
        ),
    ),
    Command(
        "daemon",
        "run the daemon in the foreground",
        "Runs the daemon, as immud.service does once the layout is in place.",
        "daemon",
        "daemon",
    ),
)

EXIT_CODES = (
    "exit codes: 0 done, 1 the operation failed, 2 wrong usage, "
    "3 the daemon cannot be reached, 4 not authorised"
)


def build() -> argparse.ArgumentParser:
    """The parser; what it returns names the module and function of the command."""
    parser = argparse.ArgumentParser(
        prog="immud",
        description="Keeps the system read-only, and people's data where they can carry it away.",
        epilog=EXIT_CODES,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"immud {__version__}")
    _add(parser, COMMANDS, required=True)
    return parser


def _add(parser: argparse.ArgumentParser, commands: tuple[Command, ...], *, required: bool) -> None:
    group = parser.add_subparsers(metavar="COMMAND", required=required, title="commands")
    for command in commands:
        sub = group.add_parser(
            command.name,
            help=command.help,
            description=command.description,
            epilog=EXIT_CODES,
            allow_abbrev=False,
        )
        sub.set_defaults(module=command.module, function=command.function)
        for flags, options in command.arguments:
            sub.add_argument(*flags, **options)
        if command.commands:
            _add(sub, command.commands, required=False)
