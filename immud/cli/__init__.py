"""The `immud` command. Nothing below exits or prints errors but `main` here.

Each command imports what it needs when it runs: `immud plan` works where no D-Bus
library does.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from immud.errors import ImmudError, NotAuthorized

TYPE_CHECKING = False  # see immud.errors
if TYPE_CHECKING:
    from typing import NoReturn


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code, as in the contract (0 to 4)."""
    given = sys.argv[1:] if argv is None else argv
    try:
        if given[:1] == ["unlock"]:
            # Every package operation comes by here: not by way of argparse, if it is plain.
            from immud.cli import unlock  # noqa: PLC0415

            unlock.plain(given[1:])
        from immud.cli.parser import build  # noqa: PLC0415 - so that ^C is caught here too

        if not given:
            build().print_help(sys.stderr)
            return 2
        arguments = build().parse_args(given)
        module = import_module(f"immud.cli.{arguments.module}")
        code: int = getattr(module, arguments.function)(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _die_of("SIGINT")
    except BrokenPipeError:
        _die_of("SIGPIPE")
    except ImmudError as error:
        return _fail(error)
    except PermissionError as error:
        if os.geteuid() == 0:
            return _fail(ImmudError(_told(error)))
        return _fail(NotAuthorized(f"{_told(error)}; run it as root"))
    except OSError as error:
        return _fail(ImmudError(_told(error)))
    return code


def _told(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _fail(error: ImmudError) -> int:
    # What was printed before the failure comes first, even where both go to one file.
    sys.stdout.flush()
    from immud.cli.render import visible  # noqa: PLC0415 - brings the model

    text = "\n".join(map(visible, str(error).split("\n")))
    print(f"immud: {text}", file=sys.stderr)
    return error.exit_code


def _die_of(name: str) -> NoReturn:
    """End as the signal would have ended us, so that a calling shell knows and stops too."""
    import signal  # noqa: PLC0415 - only here

    number = getattr(signal, name)
    # Python flushes stdout as it exits; with the reader gone that would be one more error.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    sys.exit(128 + number)  # only where the signal is blocked
