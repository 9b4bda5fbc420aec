"""What `immud enable --apt` tells apt and dpkg, and `immud disable` takes back.

In mode `lease` apt's dpkg is /usr/lib/immud/dpkg, and a link in /usr/local/sbin makes it
that of a person who types `dpkg`, since that comes first in root's PATH: /usr/bin/dpkg
itself belongs to a package, and whoever calls that is stopped by its own hook with the
command to use. In mode `refuse` apt stops by a hook of its own, before dpkg is started.
"""

import os
from collections.abc import Iterable
from contextlib import suppress

CONF = "/etc/apt/apt.conf.d/90immud"
WRAPPER = "/usr/lib/immud/dpkg"
LINK = "/usr/local/sbin/dpkg"

_HEAD = "// Written by 'immud enable --apt={mode}'; 'immud disable' takes it away.\n"
_GUARD = (
    'DPkg::Pre-Invoke {{ "if [ -x /usr/lib/immud/dpkg-guard ]; '
    'then /usr/lib/immud/dpkg-guard {mode}; fi"; }};\n'
)
_LEASE = (
    f'Dir::Bin::dpkg "{WRAPPER}";\n'
    'DPkg::Post-Invoke { "if [ -x /usr/lib/immud/apt-done ]; '
    'then /usr/lib/immud/apt-done; fi"; };\n'
)


def mode(root: str = "/") -> str:
    """The mode in force, or the empty string where there is none."""
    try:
        with open(os.path.join(root, CONF[1:]), encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return ""
    return "lease" if "Dir::Bin::dpkg" in text else "refuse"


def enable(wanted: str = "", root: str = "/", others: Iterable[int] = ()) -> str:
    """Put `wanted` in force, without one the mode there is or else `lease`; what to tell.

    Also in `others`, descriptors of each /etc that another boot may show. Raises OSError. A system
    without apt is left alone.
    """
    chosen = wanted or mode(root) or "lease"
    text = (_HEAD + _GUARD).format(mode=chosen) + (_LEASE if chosen == "lease" else "")
    for conf in _each_conf(root, others):
        _write(conf, text)
    link = os.path.join(root, LINK[1:])
    if chosen == "refuse":
        return _unlink(link)
    if not _is_ours(link) and os.path.isdir(os.path.join(root, "etc/apt")):
        try:
            os.symlink(WRAPPER, link)
        except OSError as error:
            why = f"{LINK} could not be made ({error.strerror})"
            return f"{why}, so plain dpkg needs 'immud unlock'."
    return ""


def disable(root: str = "/", others: Iterable[int] = ()) -> str:
    """Leave apt and dpkg as they were, in `others` as well; what to tell. Raises OSError."""
    for conf in _each_conf(root, others):
        with suppress(FileNotFoundError):
            os.unlink(conf)
    return _unlink(os.path.join(root, LINK[1:]))


def _each_conf(root: str, others: Iterable[int]) -> list[str]:
    etcs = (os.path.join(root, "etc"), *(f"/proc/self/fd/{etc}" for etc in others))
    return [os.path.join(etc, CONF.removeprefix("/etc/")) for etc in etcs]


def _write(path: str, text: str) -> None:
    if not os.path.isdir(os.path.dirname(path)):
        return
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    # apt reads no file with such a name, so that a half of one is never read.
    os.rename(path + ".new", path)


def _is_ours(link: str) -> bool:
    try:
        return os.readlink(link) == WRAPPER
    except OSError:
        return False


def _unlink(link: str) -> str:
    """Take the link away; what to tell where /usr/local is read-only, as all of /usr may be."""
    if not _is_ours(link):
        return ""
    try:
        os.unlink(link)
    except OSError as error:
        why = f"{LINK} could not be removed ({error.strerror})"
        return (
            f"{why}, so plain dpkg has a lease where it needs one until: immud unlock -- rm {LINK}"
        )
    return ""
