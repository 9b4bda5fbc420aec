"""Running a command: with a limit on its time, and an error that shows what it printed."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

TAIL = 40
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class HarnessError(Exception):
    """A test bed could not do what was asked of it; the text shows the end of its output."""


class CommandFailed(HarnessError):
    """A command ended with an exit status that was not expected."""

    def __init__(self, argv: Sequence[str], status: int, output: str) -> None:
        super().__init__(f"{' '.join(argv)}: exit status {status}\n{tail(output)}")
        self.argv, self.status, self.output = tuple(argv), status, output


class Completed:
    """What a command did: its exit status and what it printed, as text."""

    __slots__ = ("status", "stderr", "stdout")

    def __init__(self, status: int, stdout: str, stderr: str) -> None:
        self.status, self.stdout, self.stderr = status, stdout, stderr

    def __repr__(self) -> str:
        return f"Completed(status={self.status}, stdout={self.stdout!r}, stderr={self.stderr!r})"


def tail(text: str, lines: int = TAIL) -> str:
    """The last `lines` lines of `text`."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def run(
    *argv: str,
    check: bool = True,
    input: bytes | str = b"",
    timeout: float = 60,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> Completed:
    """Run `argv` to its end.

    Raises CommandFailed for a status other than 0 unless `check` is false, and HarnessError when
    it has not ended after `timeout` seconds (it is killed, and what it printed is in the text).
    """
    data = input.encode() if isinstance(input, str) else input
    try:
        done = subprocess.run(
            argv,
            input=data,
            capture_output=True,
            timeout=timeout,
            check=False,
            cwd=cwd,
            env={**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8", **(env or {})},
        )
    except subprocess.TimeoutExpired as error:
        printed = ((error.stdout or b"") + (error.stderr or b"")).decode(errors="replace")
        raise HarnessError(
            f"{' '.join(argv)}: still running after {timeout:g} s\n{tail(printed)}"
        ) from None
    except FileNotFoundError:
        raise HarnessError(
            f"{argv[0]} is not installed; tests/run installs what the tests need"
        ) from None
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if check and done.returncode:
        raise CommandFailed(argv, done.returncode, out + err)
    return Completed(done.returncode, out, err)


@contextlib.contextmanager
def standing(code: str, *arguments: str) -> Iterator[int]:
    """A process that has run the Python `code` and then stands there; its id."""
    script = f"{code}\nimport time\nprint('ready', flush=True)\ntime.sleep(100)"
    child = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE)
    assert child.stdout
    try:
        assert child.stdout.readline() == b"ready\n"
        yield child.pid
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
