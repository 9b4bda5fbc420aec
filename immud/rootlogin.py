"""Whether root can log in: asked before anybody else is kept from it."""

import os

USELESS = ("nologin", "false", "sync")
SSHD = "/usr/sbin/sshd"


def possible(root: str = "/") -> bool:
    """Whether the root user of the system in `root` has a password, or a key that sshd takes.

    Not whether there is a console for the one or a network for the other.
    """
    account = _fields(root, "/etc/passwd")
    if len(account) < 7 or os.path.basename(account[6]) in USELESS:
        return False
    shadow = _fields(root, "/etc/shadow")
    # shadow(5): a password that begins so is locked; an empty one lets anybody in at the console.
    if len(shadow) > 1 and not shadow[1].startswith(("!", "*")):
        return True
    keys = _lines(_below(root, f"{account[5]}/.ssh/authorized_keys"))
    return os.path.exists(_below(root, SSHD)) and any(
        line.strip() and not line.lstrip().startswith("#") for line in keys
    )


def _fields(root: str, path: str) -> list[str]:
    """root's line in a file such as passwd(5)."""
    found = (line.split(":") for line in _lines(_below(root, path)) if line.startswith("root:"))
    return next(found, [])


def _below(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().split("\n")
    except OSError:
        return []
