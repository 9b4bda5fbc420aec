"""A lease for dpkg that lasts as long as the apt which runs it: see units/dpkg."""

import os
import sys

from immud.lease import begin, wire


def main() -> None:
    """`daemon lease-for PID PROGRAM [ARGUMENT...]`: become the program, in a lease of PID's."""
    pid, command = int(sys.argv[2]), sys.argv[3:]
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            whose = tuple(map(os.fsdecode, file.read().split(b"\0")[:-1]))
        begin.begin(whose, reason="apt", pid=pid)
    except (wire.Failed, OSError) as error:
        # dpkg would say that /usr is read-only, and its guard what to do about it.
        sys.exit(f"immud: {error}; nothing was changed")
    begin.become(command[0], command)
