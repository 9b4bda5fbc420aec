"""A command of the command line, as data, and the arguments that several of them have."""

from typing import Any, NamedTuple

Argument = tuple[tuple[str, ...], dict[str, Any]]


class Command(NamedTuple):
    """A command: what it is called and said to do, and the function that does it.

    One with `commands` of its own does what its function does where none of them is given.
    """

    name: str
    help: str
    description: str
    module: str
    function: str
    arguments: tuple[Argument, ...] = ()
    commands: tuple["Command", ...] = ()


JSON: Argument = (("--json",), {"action": "store_true", "help": "print JSON for programs"})
DRY_RUN: Argument = (
    ("-n", "--dry-run"),
    {"action": "store_true", "help": "print the steps and change nothing"},
)
