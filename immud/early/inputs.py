"""Which files configure this machine: the one list, for phase 1 and for the parser alike.

The vendor's file, the person's, then drop-ins by name (systemd's order); hidden
ones are left out, editors leave such locks behind.
"""

import os

VENDOR = "/usr/lib/immud/immud.toml"
MAIN = "/etc/immud/immud.toml"
DROPINS = "/etc/immud/immud.toml.d"


def files(root: str = "/") -> tuple[str, ...]:
    """The paths, seen from inside `root`, of the configuration files there are, in order.

    Raises OSError for a directory of drop-ins that cannot be listed.
    """
    found = [path for path in (VENDOR, MAIN) if os.path.lexists(os.path.join(root, path[1:]))]
    try:
        names = sorted(os.listdir(os.path.join(root, DROPINS[1:])))
    except (FileNotFoundError, NotADirectoryError):
        names = []
    found += [f"{DROPINS}/{n}" for n in names if n.endswith(".toml") and not n.startswith(".")]
    return tuple(found)


def contents(root: str = "/") -> tuple[tuple[str, bytes], ...]:
    """Every one of them that can be read, and its bytes. Never raises: boot has to go on."""
    found = []
    try:
        for path in files(root):
            with open(os.path.join(root, path[1:]), "rb") as file:
                found.append((path, file.read()))
    except OSError:
        pass  # compiling will say so, with a name and a reason
    return tuple(found)
