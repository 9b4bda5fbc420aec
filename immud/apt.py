"""What `immud enable --apt` tells apt and dpkg, and `immud disable` takes back.

In mode `lease` apt's dpkg is /usr/lib/immud/dpkg, and a link in /usr/local/sbin makes it
that of a person who types `dpkg`, since that comes first in root's PATH: /usr/bin/dpkg
itself belongs to a package, and whoever calls that is stopped by its own hook with the
command to use. In mode `refuse` apt stops by a hook of its own, before dpkg is started.
"""

import os
from contextlib import suppress

CONF = "/etc/apt/apt.conf.d/90immud"
WRAPPER = "/usr/lib/immud/dpkg"
LINK = "/usr/local/sbin/dpkg"
MODES = ("lease", "refuse")

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
    return "lease" if WRAPPER in text else "refuse"


def enable(wanted: str = "", root: str = "/") -> str:
    """Put `wanted` in force, without one the mode there is or else `lease`; what to tell.

    Raises OSError. A system without apt is left alone.
    """
    conf, link = (os.path.join(root, path[1:]) for path in (CONF, LINK))
    chosen = wanted or mode(root) or "lease"
    if not os.path.isdir(os.path.dirname(conf)):
        return ""
    with open(conf + ".new", "w", encoding="utf-8") as file:
        file.write((_HEAD + _GUARD).format(mode=chosen) + (_LEASE if chosen == "lease" else ""))
        file.flush()
        os.fsync(file.fileno())
    # apt reads no file with such a name, so that a half of one is never read.
    os.rename(conf + ".new", conf)
    if chosen == "refuse":
        _unlink(link)
        return ""
    if _is_ours(link):
        return ""
    try:
        os.symlink(WRAPPER, link)
    except OSError as error:
        return f"{LINK} could not be made ({error.strerror}), so plain dpkg needs 'immud unlock'."
    return ""


def disable(root: str = "/") -> None:
    """Leave apt and dpkg as they were."""
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(root, CONF[1:]))
    _unlink(os.path.join(root, LINK[1:]))


def _is_ours(link: str) -> bool:
    try:
        return os.readlink(link) == WRAPPER
    except OSError:
        return False


def _unlink(link: str) -> None:
    if _is_ours(link):
        os.unlink(link)
