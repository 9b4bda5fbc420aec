"""Prints the completion of immud for bash(1), from the table the command line is made from."""

from collections.abc import Iterator
from shlex import quote

import roff  # noqa: F401 - finds immud

from immud.cli.command import Argument, Command
from immud.cli.parser import COMMANDS
from immud.config.layout import SILVERBLUE

# What a value is, by the word that stands for it; of any other nothing is known.
VALUES = {
    "FILE": "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$word\"))",
    "DIR": "compopt -o filenames; COMPREPLY=($(compgen -d -- \"$word\"))",
    "DEVICE": "COMPREPLY=($(compgen -W \"$(lsblk -npro NAME 2>/dev/null)\" -- \"$word\"))",
    "NAME": "COMPREPLY=($(compgen -W \"$(_immud_tombs)\" -- \"$word\"))",
    "PATH": "COMPREPLY=($(compgen -W {} -- \"$word\"))".format(
        quote(" ".join(row.path for row in SILVERBLUE))
    ),
    "COMMAND": "_command_offset $at",
}  # fmt: skip

HEAD = """\
# Completion of immud(1) for bash(1).

# The names of the tombs the daemon knows, without starting it.
_immud_tombs() {
    busctl --system --no-pager --list --auto-start=no tree org.immud1 2>/dev/null |
        sed -n 's,^/org/immud1/tomb/,,p' |
        while read -r name; do printf '%b\\n' "${name//_/\\\\x}"; done
}

_immud() {
    local word=$2 previous=$3 command='' at=1
    COMPREPLY=()
    # Which command this is, of one word or two.
    while ((at < COMP_CWORD)); do
        case "$command ${COMP_WORDS[at]}" in
"""

MIDDLE = """\
        *) break ;;
        esac
        ((at++))
    done
    case "$command $previous" in
"""

TAIL = """\
    esac
}
complete -F _immud immud
"""


def walk(commands: tuple[Command, ...], before: str = "") -> Iterator[tuple[str, Command]]:
    """Every command with all its words."""
    for command in commands:
        words = f"{before} {command.name}"
        yield words, command
        yield from walk(command.commands, words)


def value(argument: Argument) -> str:
    """What completes the value of an argument."""
    _, options = argument
    if choices := options.get("choices"):
        return f'COMPREPLY=($(compgen -W {quote(" ".join(choices))} -- "$word"))'
    return VALUES.get(options["metavar"], ":")


def takes_value(argument: Argument) -> bool:
    flags, options = argument
    return flags[0].startswith("-") and "metavar" in options


def cases() -> Iterator[str]:
    """What comes after each command: its options, their values, its arguments."""
    for words, command in walk(COMMANDS):
        for argument in filter(takes_value, command.arguments):
            names = "|".join(quote(f"{words} {flag}") for flag in argument[0])
            yield f"    {names}) {value(argument)}; return ;;"
    yield "    esac"
    yield '    case "$command" in'
    everything = " ".join(command.name for command in COMMANDS)
    yield "    '')"
    yield f"        local first={quote(everything)}"
    yield '        if [[ $word == -* ]]; then first="--help --version"; fi'
    yield '        COMPREPLY=($(compgen -W "$first" -- "$word"))'
    yield "        ;;"
    for words, command in walk(COMMANDS):
        flags = [flag for flags, _ in command.arguments for flag in flags if flag.startswith("-")]
        after = [inner.name for inner in command.commands]
        listed = quote(" ".join([*flags, "--help"]))
        plain = [a for a in command.arguments if not a[0][0].startswith("-")]
        other = f'COMPREPLY=($(compgen -W {quote(" ".join(after))} -- "$word"))' if after else ":"
        other = value(plain[0]) if plain else other
        yield f"    {quote(words)})"
        yield f'        if [[ $word == -* ]]; then COMPREPLY=($(compgen -W {listed} -- "$word"))'
        yield f"        else {other}; fi"
        yield "        ;;"


known = "\n".join(
    f"        {quote(words)}) command={quote(words)} ;;" for words, _ in walk(COMMANDS)
)
print(HEAD + known + "\n" + MIDDLE + "\n".join(cases()) + "\n" + TAIL, end="")
