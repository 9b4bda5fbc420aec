"""Asking for a passphrase on the terminal: exactly the bytes typed, and no echo of them."""

import os
import sys
import termios

from immud.errors import UsageError


def ask(prompt: str) -> bytes:
    """The line typed on standard input, which is a terminal. Raises UsageError for none."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    silent = termios.tcgetattr(fd)
    silent[3] &= ~(termios.ECHO | termios.ECHONL)
    try:
        # FLUSH: what was typed before the question was not meant as the answer.
        termios.tcsetattr(fd, termios.TCSAFLUSH, silent)
        sys.stderr.write(prompt)
        sys.stderr.flush()
        line = os.read(fd, 4096)
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)
        sys.stderr.write("\n")
    passphrase = line.removesuffix(b"\n")
    if not passphrase:
        raise UsageError("no passphrase was given; nothing was done")
    return passphrase
