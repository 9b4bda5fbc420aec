"""Man pages, completion and catalog, held against the tables and judged by groff and bash."""

import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from immud.bus.vtable import Emits, Interface, Property
from immud.cli.parser import COMMANDS
from immud.log import MessageId

MAN = Path(__file__).parents[2] / "packaging/man"


def made(name: str) -> str:
    """What a generator prints, run as the package's build runs it."""
    done = subprocess.run(
        (sys.executable, "-B", str(MAN / name)), check=True, capture_output=True, text=True
    )
    return done.stdout


def pages() -> dict[str, str]:
    written = {path.name: path.read_text() for path in MAN.glob("*.[1-8]")}
    return written | {"immud.1": made("command.py"), "org.immud1.5": made("bus.py")}


def test_groff_has_nothing_to_say_about_any_page() -> None:
    found = pages()
    assert set(found) >= {"immud.1", "org.immud1.5", "immud.toml.5", "immud.service.8"}
    for name, text in found.items():
        judged = subprocess.run(
            ("groff", "-man", "-Tutf8", "-ww", "-b"),
            input=text,
            check=True,
            capture_output=True,
            text=True,
        )
        assert judged.stderr == "", name
        assert judged.stdout.count("\n") > 20


def test_every_member_on_the_bus_is_on_the_page() -> None:
    page = pages()["org.immud1.5"].replace("\\-", "-")
    assert "PropertiesChanged" in page
    said = {text.split("\n", 1)[0]: text for text in page.split("\n.SH ")}
    interfaces = list(bus_interfaces())
    assert len(interfaces) >= 6
    for interface in interfaces:
        assert interface.name.upper() in said, f"{interface.name} is missing: add it to bus.py"
        entries = said[interface.name.upper()].split("\n.TP\n")[1:]
        assert len(entries) == len(interface.members)
        for member, entry in zip(interface.members, entries, strict=True):
            head, text = entry.split("\n", 1)
            assert head.startswith(f"\\fB{member.name}\\fR")
            constant = isinstance(member, Property) and member.emits is Emits.CONSTANT
            assert ("Never changes." in text) == constant, f"{interface.name}.{member.name}"


def bus_interfaces() -> Iterator[Interface]:
    """Every interface of org.immud1 itself, as a table; what it is about is left open."""
    for path in sorted((MAN.parents[1] / "immud/bus").glob("*.py")):
        if "def interface(" in path.read_text() and path.stem not in ("logcontrol", "standard"):
            made = importlib.import_module(f"immud.bus.{path.stem}").interface
            yield made(*[Mock() for _ in inspect.signature(made).parameters])


@pytest.fixture(scope="module")
def completion() -> str:
    return made("completion.py")


def complete(script: str, *words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    array = " ".join(f"'{word}'" for word in words)
    ask = (
        f"COMP_WORDS=({array}); COMP_CWORD={len(words) - 1}\n"
        f"compopt() {{ :; }}; _command_offset() {{ COMPREPLY=(at $1); }}\n"
        f"_immud_tombs() {{ echo home my-vault; }}\n"
        f"_immud immud '{words[-1]}' '{words[-2]}'\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ("bash", "--norc", "-c", script + ask), check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_options_and_values_are_completed(completion: str) -> None:
    assert complete(completion, "immud", "") == [command.name for command in COMMANDS]
    assert complete(completion, "immud", "sta") == ["status"]
    assert complete(completion, "immud", "--") == ["--help", "--version"]
    assert complete(completion, "immud", "tomb", "for") == ["forget"]
    assert complete(completion, "immud", "status", "--j") == ["--json"]
    assert complete(completion, "immud", "tomb", "create", "--no") == ["--no-enrol"]
    assert complete(completion, "immud", "tomb", "create", "--fs", "b") == ["btrfs"]
    assert complete(completion, "immud", "close", "") == ["home", "my-vault"]
    assert complete(completion, "immud", "close", "--force", "my") == ["my-vault"]
    assert complete(completion, "immud", "adopt", "/us") == ["/usr/local"]
    assert complete(completion, "immud", "unlock", "--", "ap") == ["at", "2"]
    assert "/etc" in complete(completion, "immud", "plan", "--root", "/et")


def test_the_catalog_explains_every_message_and_no_other() -> None:
    text = (MAN.parents[1] / "units/immud.catalog").read_text()
    entries = re.findall(r"^-- ([0-9a-f]{32})\n((?:[A-Z][\w-]+: .*\n)+)\n(.+)", text, re.MULTILINE)
    assert {number for number, _, _ in entries} == set(MessageId)
    assert len(entries) == len(MessageId) == text.count("\n-- ")
    for _, header, _ in entries:
        assert header.startswith("Subject: ")
        assert "Defined-By: immud\n" in header
    # the journal's own fields and those a message of ours has; an empty name would be a stray @
    assert set(re.findall(r"@(\w*)@", text)) <= {
        *("IMMUD_TOMB", "IMMUD_PATH", "IMMUD_EXPECTED", "IMMUD_ACTUAL"),
        *("IMMUD_DEVICE", "IMMUD_CODE", "IMMUD_EVENT"),
    }
