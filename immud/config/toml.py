"""TOML with the line of every key, which tomllib keeps to itself.

tomllib decides what is valid and what it means. `locate` walks a text that
tomllib has accepted and only notes where each key stands, so that an error found
later, in the meaning, can name a line (TOML 1.0.0, https://toml.io/en/v1.0.0).
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from immud.errors import ConfigError

Key = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
BARE = re.compile(r"[A-Za-z0-9_-]+")
# Longest first: three quotes open a multi-line string, two are an empty one. A
# multi-line string may end in up to five quotes, of which the last three close it.
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")'
    r"|'''.*?'{3,5}(?!')"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class _Walk:
    """One pass over a valid document; `lines` fills as keys are met."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Key, int] = {}
        self.counts: dict[Key, int] = {}
        self._line, self._counted = 1, 0

    def note(self, key: Key, at: int) -> None:
        """Remember the line of `key`, and of the tables it is in if they had none yet."""
        self._line += self.text.count("\n", self._counted, at)
        self._counted = at
        for length in range(1, len(key)):
            self.lines.setdefault(key[:length], self._line)
        self.lines.setdefault(key, self._line)

    def skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise ValueError(f"unexpected text at offset {self.at}")
        self.at = match.end()
        return match.group()

    def take(self, token: str) -> bool:
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def key(self) -> Key:
        """A key, dotted or not, with the space around it."""
        parts: list[str] = []
        while True:
            self.skip(_SPACE)
            if self.text[self.at] in "\"'":
                # A quoted key is a string: let tomllib say what it contains.
                parts.append(tomllib.loads("k=" + self.skip(_STRING))["k"])
            else:
                parts.append(self.skip(BARE))
            self.skip(_SPACE)
            if not self.take("."):
                return tuple(parts)

    def document(self) -> None:
        table: Key = ()
        while True:
            self.skip(_BLANK)
            at = self.at
            if at >= len(self.text):
                return
            if self.take("[["):
                table = self.inside(self.key())
                self.take("]]")
                index = self.counts.get(table, 0)
                self.counts[table] = index + 1
                table = (*table, index)
                self.note(table, at)
            elif self.take("["):
                table = self.inside(self.key())
                self.take("]")
                self.note(table, at)
            else:
                self.pair(table)

    def inside(self, header: Key) -> Key:
        """The full key of a `[header]`: a part that is an array of tables means its last one."""
        key: Key = ()
        for number, part in enumerate(header):
            key = (*key, part)
            if key in self.counts and number < len(header) - 1:
                key = (*key, self.counts[key] - 1)
        return key

    def pair(self, table: Key) -> None:
        at = self.at
        key = (*table, *self.key())
        self.note(key, at)
        self.take("=")
        self.skip(_SPACE)
        self.value(key)

    def value(self, key: Key) -> None:
        if self.text.startswith(('"', "'"), self.at):
            self.skip(_STRING)
        elif self.take("["):
            for index in self.items("]"):
                self.note((*key, index), self.at)
                self.value((*key, index))
        elif self.take("{"):
            for _ in self.items("}"):
                self.pair(key)
        else:
            self.skip(_SCALAR)

    def items(self, close: str) -> Iterator[int]:
        """Stand before each item in turn, up to and past `close`."""
        index = 0
        while True:
            self.skip(_BLANK)
            if self.take(close):
                return
            yield index
            index += 1
            self.skip(_BLANK)
            self.take(",")


def locate(text: str) -> dict[Key, int]:
    """The line, from 1, of every table, key and array item in `text`, which is valid TOML."""
    walk = _Walk(text)
    walk.document()
    return walk.lines


def parse(data: bytes, file: str) -> tuple[Mapping[str, Any], Mapping[Key, int]]:
    """The document in `data` and the line of each of its keys.

    Raises ConfigError naming `file` and the line for whatever is not TOML in UTF-8.
    """
    try:
        # As tomllib reads files: a CRLF is a line break and nothing else is.
        text = data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8",
            file=file,
            line=data.count(b"\n", 0, error.start) + 1,
        ) from error
    if text.startswith("\ufeff"):
        raise ConfigError(
            "a byte order mark comes before the text; save the file as UTF-8 without one",
            file=file,
            line=1,
        )
    try:
        return tomllib.loads(text), locate(text)
    except RecursionError as error:
        raise ConfigError("values are nested too deeply", file=file, line=1) from error
    except ValueError as error:
        # TOMLDecodeError is one, and so is what int() says of 5000 digits.
        reason = str(error)
        place = _PLACE.search(reason)
        line = text.rstrip("\n").count("\n") + 1
        if place is not None:
            reason = reason[: place.start()]
            line = int(place[1] or line)
        raise ConfigError(f"not valid TOML: {reason}", file=file, line=line) from error
