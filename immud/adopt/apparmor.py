"""AppArmor sees paths as the kernel resolves them: /var/home, where profiles say /home.

One file among its tunables tells it: Debian's `tunables/home` includes every
file of `tunables/home.d`, and almost every profile includes that through
`tunables/global`. An alias makes each rule for the one path count for the other
as well (apparmor.d(5)), but not where the path comes from a variable with more
than one value: the homes are added to the variables themselves.
"""

from collections.abc import Iterable

from immud.early.plan import Row

TUNABLES = "/etc/apparmor.d/tunables/home.d"
FILE = f"{TUNABLES}/immud"
ENABLED = "/sys/module/apparmor/parameters/enabled"

_HEAD = "# Written by `immud adopt`, removed by `immud release`: where the links lead.\n"
_VARIABLES = {"/home": "@{{HOMEDIRS}}+={}/\n", "/root": "@{{HOME}}+={}/\n"}


def text(rows: Iterable[Row]) -> str:
    """The file for these adopted rows; the empty string where none needs one."""
    links = [row for row in rows if row.kind == "link"]
    homes = [_VARIABLES[row.path].format(row.directory) for row in links if row.path in _VARIABLES]
    aliases = [f"alias {_quoted(row.path)} -> {_quoted(row.directory)},\n" for row in links]
    return "".join([_HEAD, *homes, *aliases]) if links else ""


def _quoted(path: str) -> str:
    return f'"{path}/"' if " " in path else f"{path}/"
