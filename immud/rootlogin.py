"""Whether root can log in: asked before anybody else is kept from it.

Of sshd its files are read, for `sshd -T` wants host keys and the running system. Where they leave
a doubt the answer is no: who is kept from nothing loses less than who is locked out.
"""

import glob
import os
import re
import shlex
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase

USELESS = ("nologin", "false", "sync")
SSHD = "/usr/sbin/sshd"
CONFIG = "/etc/ssh/sshd_config"
# As deep as sshd goes (SERVCONF_MAX_DEPTH).
_DEPTH = 16

Values = list[str]

_KEY = re.compile(r"(ssh|ecdsa|sk)-\S+[ \t]+\S")
# sshd(8), AUTHORIZED_KEYS FILE FORMAT: blanks only between double quotes, and \" for one of these.
_QUOTED = r'"(?:\\"|\\(?!")|[^"\\])*"'
_OPTIONS = re.compile(rf'(?:{_QUOTED}|\\"|\\(?!")|[^\s"\\])+(?=[ \t])')
# What leaves no shell, or only to some. Cloud images have command="echo 'Please login as ...'".
_USELESS_WITH = frozenset({"command", "cert-authority", "expiry-time"})
_SETTING = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+|$)(.*)")
# What lets root in with a key: as the value, and among the values.
_FIRST = {
    "permitrootlogin": ("yes", "prohibit-password", "without-password"),
    "pubkeyauthentication": ("yes",),
    "forcecommand": ("none",),
}
_AMONG = {
    "authorizedkeysfile": {".ssh/authorized_keys", "%h/.ssh/authorized_keys"},
    "authenticationmethods": {"any", "publickey"},
    "allowusers": {"root"},
    "allowgroups": {"root"},
}


def possible(root: str = "/") -> bool:
    """Whether the root user of the system in `root` has a password, or a key that sshd takes.

    Not whether there is a console for the one or a network for the other.
    """
    account = _fields(root, "/etc/passwd")
    if len(account) < 7 or os.path.basename(account[6]) in USELESS:
        return False
    shadow = _fields(root, "/etc/shadow")
    if _has_expired(shadow):
        return False
    password = shadow[1] if len(shadow) > 1 else "*"
    # shadow(5): a password that begins so is locked; an empty one lets anybody in at the console.
    if not password.startswith(("!", "*")):
        return True
    keys = _lines(_below(root, f"{account[5]}/.ssh/authorized_keys"))
    locked = password.startswith("!")
    return any(map(gives_a_shell, keys)) and _takes_keys(root, account[5], locked=locked)


def _has_expired(shadow: list[str]) -> bool:
    """Whether nothing opens the account any more, neither its password nor a key (shadow(5)).

    It has a last day, or its password was not changed in time and some days more.
    """
    days = {at: int(field) for at, field in enumerate(shadow) if at > 1 and field.isdecimal()}
    today = int(time.time()) // 86400
    in_time = sum(days[at] for at in (2, 4, 6)) if days.keys() >= {2, 4, 6} else today
    return today > in_time or today >= days.get(7, today + 1)


def gives_a_shell(line: str) -> bool:
    """Whether a line of authorized_keys is a key that its owner may do anything with. Pure."""
    line = line.strip()
    if _KEY.match(line):
        return True
    options = _OPTIONS.match(line)
    if options is None or line.startswith("#") or not _KEY.match(line[options.end() :].lstrip()):
        return False
    names = re.sub(_QUOTED, "", options[0]).lower().split(",")
    return _USELESS_WITH.isdisjoint(name.partition("=")[0] for name in names)


def _takes_keys(root: str, home: str, *, locked: bool) -> bool:
    """Whether there is an sshd that lets root in by a key (sshd_config(5)).

    Into an account that is `locked`, its password beginning with `!`, it lets only where PAM
    has the say.
    """
    if not os.path.exists(_below(root, SSHD)) or not os.path.exists(_below(root, CONFIG)):
        return False
    settled: dict[str, Values] = {}
    try:
        for keyword, values, conditional in _settings(root, CONFIG):
            if conditional and not _lets_in(keyword, values, home):
                return False
            if not conditional and keyword.startswith(("allow", "deny")):
                settled.setdefault(keyword, []).extend(values)
            elif not conditional:
                settled.setdefault(keyword, values)
    except ValueError:  # a quotation mark without its other
        return False
    if locked and [value.lower() for value in settled.get("usepam", ())] != ["yes"]:
        return False
    return all(_lets_in(keyword, values, home) for keyword, values in settled.items())


def _lets_in(keyword: str, values: Values, home: str) -> bool:
    """Whether root gets a shell by a key, as far as it depends on this setting."""
    if keyword in ("denyusers", "denygroups"):
        return not any(fnmatchcase("root", value.partition("@")[0]) for value in values)
    if keyword in _FIRST:
        return bool(values) and values[0].lower() in _FIRST[keyword]
    wanted = _AMONG.get(keyword)
    return wanted is None or not wanted.isdisjoint(value.replace(home, "%h") for value in values)


def _settings(root: str, path: str, depth: int = 0) -> Iterator[tuple[str, Values, bool]]:
    """(keyword, values, whether they hold under a condition) in sshd's order.

    What holds for others than root only is left out. Raises ValueError for what is not in order.
    """
    conditional = spared = False
    for line in _lines(_below(root, path)):
        found = _SETTING.match(line)
        if not found:
            continue
        keyword, values = found[1].lower(), shlex.split(found[2], comments=True)
        if keyword == "match":
            conditional, spared = True, _spares_root(values)
        elif spared:
            continue
        elif keyword == "include" and depth < _DEPTH:
            for name in _included(root, values):
                for word, more, under in _settings(root, name, depth + 1):
                    yield word, more, conditional or under
        else:
            yield keyword, values, conditional


def _spares_root(criteria: Values) -> bool:
    """Whether a Match line never means root: it names users or groups, and root is none."""
    pairs = zip(criteria[::2], criteria[1::2], strict=False)
    return any(
        kind.lower() in ("user", "group")
        and set("*?!").isdisjoint(names)
        and "root" not in names.split(",")
        for kind, names in pairs
    )


def _included(root: str, patterns: Values) -> Iterator[str]:
    for pattern in patterns:
        path = os.path.join(os.path.dirname(CONFIG), pattern)
        yield from sorted(
            "/" + os.path.relpath(name, root) for name in glob.glob(_below(glob.escape(root), path))
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
