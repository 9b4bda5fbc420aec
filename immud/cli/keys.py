"""Where the key for a command comes from: a file, a descriptor, or somebody at the terminal."""

import sys
from typing import NamedTuple

from immud.errors import UsageError
from immud.make import secret

TRIES = 3


class Keys(NamedTuple):
    """What the command line says of one key: the path of a file, or a descriptor, or neither."""

    file: str | None = None
    fd: int | None = None

    def existing(self, prompt: str) -> bytes:
        """A key that the volume has."""
        given = self._given()
        return given if given is not None else _ask(prompt)

    def chosen(self, name: str) -> bytes:
        """A key for a volume to have from now on: typed twice where it is typed."""
        given = self._given()
        if given is not None:
            return given
        for _ in range(TRIES):
            typed = _ask(f"New passphrase for tomb {name}: ")
            if _ask("Once more: ") == typed:
                return typed
            print("The passphrases do not match.", file=sys.stderr)
        raise UsageError("the passphrases did not match; nothing was done")

    def _given(self) -> bytes | None:
        secret.protect()
        if self.file is not None and self.fd is not None:
            raise UsageError("a key comes from a file or from a descriptor, not from both")
        if self.file is not None:
            return secret.from_file(self.file)
        return secret.from_fd(self.fd) if self.fd is not None else None


def _ask(prompt: str) -> bytes:
    if not sys.stdin.isatty():
        raise UsageError("standard input is not a terminal; use --key-file or --passphrase-fd")
    from immud.cli.passphrase import ask  # noqa: PLC0415 - only here

    return ask(prompt)
