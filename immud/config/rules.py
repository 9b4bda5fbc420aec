"""What each value of the configuration may be, one function a kind of value.

Each takes what TOML held and returns the typed value, or raises `Wrong` with a
sentence that says what would be accepted. They know nothing of files or keys.
"""

import posixpath
import re
from typing import Any

from immud.tomb.fs.filesystems import ATTRIBUTES, known

LOG_LEVELS = ("err", "warning", "notice", "info", "debug")
ABSENT = ("directory", "volatile", "nologin")
ON_RETURN = ("wait", "over")
POLICIES = ("report", "relock")

# The names a path can have here that are never a row of the layout, nor are paths below them.
PROTECTED = (
    *("/proc", "/sys", "/dev", "/run", "/boot", "/etc", "/var", "/sysroot"),
    *("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32"),
    *("/usr/libexec", "/usr/share", "/usr/include"),
)
# Directories of /var that belong to the system: no row and no tomb takes one of them itself.
VAR_SYSTEM = (
    *("/var/backups", "/var/cache", "/var/lib", "/var/local", "/var/lock", "/var/log"),
    *("/var/mail", "/var/run", "/var/spool", "/var/tmp"),
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TAG = re.compile(r"(LABEL|UUID|PARTLABEL|PARTUUID)=([^:/]+)(?::(/.*))?")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# What FAT and exFAT have in place of one.
_SHORT_UUID = re.compile(r"[0-9a-f]{4}-[0-9a-f]{4}")
_PARTUUID = re.compile(_UUID.pattern + "|[0-9a-f]{8}-[0-9a-f]{2}")
_TOMB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,30}")
# systemd.unit(5): what can be ordered, and be held back for ever without harm to the boot.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?\.(service|socket|timer|path|target)")
_SIZE = re.compile(r"[1-9][0-9]{0,5}[MG]|[1-9][0-9]?%")
# useradd(8) allows less; directories of users elsewhere have capitals and dots.
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*[$]?")
_OPTION = re.compile(r"[A-Za-z0-9_.:/=+@%-]+")
# A tomb is mounted nosuid,nodev whatever is asked for; these would undo that, or are
# words of fstab(5) that mean nothing to the kernel.
_FORBIDDEN_OPTIONS = (
    *("suid", "dev", "defaults", "user", "users", "owner", "group"),
    *("auto", "noauto", "nofail", "_netdev", "remount", "bind", "rbind", "move", "loop"),
)


class Wrong(ValueError):
    """The value is not acceptable; the text says what would be."""


def kind_of(value: Any) -> str:
    """The TOML name of the type of `value`, with its article."""
    names = {
        bool: "a boolean",
        int: "an integer",
        float: "a float",
        str: "a string",
        list: "an array",
        dict: "a table",
    }
    return names.get(type(value), "a date or time")


def _string(value: Any, wanted: str) -> str:
    if not isinstance(value, str):
        raise Wrong(f"is {kind_of(value)}; it has to be {wanted}, as a string")
    if _CONTROL.search(value):
        raise Wrong(f"contains a control character: {value!r}; it has to be {wanted}")
    return value


def within(path: str, directory: str) -> bool:
    """Is `path` the directory itself or below it?"""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Wrong(f"is {kind_of(value)}; it has to be true or false")
    return value


def seconds(value: Any) -> int:
    """How long boot may wait, in whole seconds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise Wrong(f"is {kind_of(value)}; it has to be a whole number of seconds from 0 to 600")
    if not 0 <= value <= 600:
        raise Wrong(f"is {value}; it has to be a whole number of seconds from 0 to 600")
    return value


def units(value: Any) -> tuple[str, ...]:
    """Names of units, as systemctl(1) takes them."""
    wanted = 'an array of names of units such as ["postgresql.service"]'
    if not isinstance(value, list):
        raise Wrong(f"is {kind_of(value)}; it has to be {wanted}")
    for unit in value:
        text = _string(unit, "the name of a unit")
        if not _UNIT.fullmatch(text):
            raise Wrong(f'has "{text}" in it; it has to be {wanted}')
        if text in ("immud.service", "dbus.service", "systemd-journald.service"):
            raise Wrong(f'has "{text}" in it, which must always start')
    return tuple(value)


def one_of(*words: str) -> Any:
    """A rule that accepts these words and nothing else."""
    wanted = "one of " + ", ".join(f'"{word}"' for word in words)

    def rule(value: Any) -> str:
        text = _string(value, wanted)
        if text not in words:
            raise Wrong(f'is "{text}"; it has to be {wanted}')
        return text

    return rule


def path(value: Any, wanted: str = 'an absolute path such as "/var/home"') -> str:
    """An absolute path in its one normal form."""
    text = _string(value, wanted)
    if not text.startswith("/"):
        raise Wrong(f'is "{text}", which is not absolute; it has to be {wanted}')
    if ".." in text.split("/"):
        raise Wrong(f'is "{text}", with ".." in it; it has to be {wanted}')
    # POSIX lets exactly two leading slashes mean something else; Linux does not.
    normal = "/" + posixpath.normpath(text).lstrip("/")
    if text != normal:
        raise Wrong(f'is "{text}"; write it as "{normal}"')
    return text


def source(value: Any) -> str:
    """Where /usr, /etc or /var comes from: a path, or a file system by one of its tags."""
    wanted = (
        'an absolute path, or "LABEL=", "UUID=", "PARTLABEL=" or "PARTUUID=" with the name of '
        'a file system and, if need be, ":/sub/path"'
    )
    text = _string(value, wanted)
    if text.startswith("/"):
        path(text, wanted)
        if text == "/":
            raise Wrong('is "/", the tree it would be part of; it has to be ' + wanted)
        for other in ("/dev", "/proc", "/sys"):
            if within(text, other):
                raise Wrong(f'is "{text}", inside {other}; it has to be {wanted}')
        return text
    match = _TAG.fullmatch(text)
    if match is None:
        raise Wrong(f'is "{text}"; it has to be {wanted}')
    if match[3] is not None:
        path(match[3], "followed by an absolute path")
    return text


def row_path(value: str) -> str:
    """A path that may be a row of the layout."""
    path(value, 'an absolute path such as "/home"')
    if value in ("/", "/usr") or any(within(value, other) for other in PROTECTED):
        raise Wrong("is part of the system and cannot be a link or a bind; drop this row")
    return value


def target(row: str, value: Any) -> str:
    """What the link at `row` contains: relative to its directory, whatever was written.

    Accepts what ln(1) would: an absolute path, or one relative to the link's
    directory (`/var/usrlocal` and `../var/usrlocal` are the same for /usr/local).
    """
    wanted = f'a directory below /var, such as "/var/{row.rpartition("/")[2]}"'
    text = _string(value, wanted)
    base = posixpath.dirname(row)
    if not text:
        raise Wrong("is empty; it has to be " + wanted)
    if text.startswith("/"):
        directory = path(text, wanted)
    else:
        parts = text.split("/")
        climbs = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
        if climbs > len(base.strip("/").split("/")) * (base != "/"):
            raise Wrong(f'is "{text}", which leads out of /; it has to be {wanted}')
        if text != posixpath.normpath(text):
            raise Wrong(f'is "{text}"; write it as "{posixpath.normpath(text)}"')
        directory = posixpath.normpath(posixpath.join(base, text))
    return posixpath.relpath(directory, base)


def below_var(directory: str) -> str:
    """A directory that may hold people's data: below /var, and not one of the system's own."""
    if not directory.startswith("/var/"):
        raise Wrong(f'leads to "{directory}"; it has to lead to a directory below /var')
    if directory in VAR_SYSTEM:
        raise Wrong(f"leads to {directory}, which belongs to the system; choose another below /var")
    return directory


def mode(value: Any) -> int:
    """The permissions of a directory, in octal."""
    wanted = 'octal digits such as "0755" or "1777"'
    text = _string(value, wanted)
    if not re.fullmatch(r"0?[0-7]{3}|[0-3][0-7]{3}", text):
        raise Wrong(f'is "{text}"; it has to be {wanted}')
    if int(text, 8) & 0o700 != 0o700:
        raise Wrong(f'is "{text}", which locks the owner out; it has to be {wanted}')
    return int(text, 8)


def tomb_name(value: str) -> str:
    """A name that is safe in unit names, mapping names and object paths."""
    if not _TOMB_NAME.fullmatch(value):
        raise Wrong(
            "is not a name for a tomb; "
            "use at most 31 letters, digits, underscores and hyphens, with no hyphen first"
        )
    return value


def uuid(value: Any) -> str:
    wanted = 'a UUID such as "7d5bd4b3-6f7c-4c1c-9a40-0c6b0bd4bb5b" (see blkid(8))'
    text = _string(value, wanted).lower()
    if not _UUID.fullmatch(text) and not _SHORT_UUID.fullmatch(text):
        raise Wrong(f'is "{value}"; it has to be {wanted}')
    return text


def partuuid(value: Any) -> str:
    wanted = "the UUID of a partition, as blkid(8) shows under PARTUUID"
    text = _string(value, wanted).lower()
    if not _PARTUUID.fullmatch(text):
        raise Wrong(f'is "{value}"; it has to be {wanted}')
    return text


def word(value: Any) -> str:
    """A label or a serial number."""
    text = _string(value, "a name")
    if not text.strip():
        raise Wrong("is empty; leave the key out, or name the volume")
    return text


def file(value: Any) -> str:
    """A file on a drive: relative to the top of its file system."""
    wanted = 'a path on the drive such as "tombs/secret.tomb"'
    text = _string(value, wanted)
    if not text or text.startswith("/") or any(n in ("", ".", "..") for n in text.split("/")):
        raise Wrong(
            f'is "{text}"; it has to be {wanted}, with no slash first or last and no "." or ".."'
        )
    return text


def key(value: Any) -> str:
    """Where the key of a tomb comes from."""
    wanted = (
        '"ask", the absolute path of a key file, "drive:" and a path on the drive the tomb\'s '
        'file is on, or "UUID=", "LABEL=", "PARTUUID=" or "PARTLABEL=" of another drive with '
        '":/path" after it'
    )
    if value == "ask":
        return "ask"
    text = _string(value, wanted)
    tag, colon, inside = text.partition(":")
    if tag == "drive" and colon:
        file(inside)
    elif match := _TAG.fullmatch(text):
        if match[3] is None:
            raise Wrong(f'is "{text}", without a path; it has to be {wanted}')
        file(path(match[3], wanted)[1:])
    else:
        path(text, wanted)
    return text


def size(value: Any) -> str:
    """How much memory something may take."""
    wanted = 'a size such as "512M" or "2G", or a share of the memory such as "10%"'
    text = _string(value, wanted)
    if not _SIZE.fullmatch(text):
        raise Wrong(f'is "{text}"; it has to be {wanted}')
    return text


def options(value: Any) -> tuple[str, ...]:
    """Mount options: one a string, none that would weaken the mount."""
    wanted = 'an array of mount options such as ["noatime"]'
    if not isinstance(value, list):
        raise Wrong(f"is {kind_of(value)}; it has to be {wanted}")
    for option in value:
        text = _string(option, "a mount option")
        if "," in text:
            raise Wrong(f'has "{text}" in it; write each option as a string of its own')
        if not _OPTION.fullmatch(text):
            raise Wrong(f"has {text!r} in it; an option has no spaces or quotes")
        name = text.partition("=")[0]
        if name in _FORBIDDEN_OPTIONS or name.lower().startswith(("x-", "comment")):
            raise Wrong(f'has "{text}" in it; a tomb is mounted nosuid,nodev, so leave it out')
        if text not in ATTRIBUTES and not known(text):
            raise Wrong(f'has "{text}" in it, which no file system of a tomb may have')
    return tuple(value)


def binds(value: Any) -> tuple[tuple[str, str], ...]:
    """Paths in the tomb, and where on the host each is to be seen as well."""
    wanted = 'a table such as { "alice/Documents" = "/var/lib/documents" }'
    if not isinstance(value, dict):
        raise Wrong(f"is {kind_of(value)}; it has to be {wanted}")
    for source, place in value.items():
        _string(source, "a path in the tomb")
        if any(name in ("", ".", "..") for name in source.split("/")):
            raise Wrong(
                f'has "{source}" in it; a path in the tomb is relative, without ".", ".." or '
                'double slashes, such as "alice/Documents"'
            )
        try:
            path(place)
        except Wrong as error:
            raise Wrong(f'has "{source}" in it, which {error}') from None
    return tuple(value.items())


def bind_hooks(value: Any) -> str | bool:
    """Whose home the tomb's own binds are for; true for its single owner."""
    wanted = "the name of a user, true for the tomb's single owner, or false"
    if isinstance(value, bool):
        return value
    text = _string(value, wanted)
    if not _USER.fullmatch(text):
        raise Wrong(f'is "{text}"; it has to be {wanted}')
    return text


def places(value: Any) -> tuple[str, ...]:
    """Directories below which mounts are nobody's business."""
    wanted = 'an array of paths such as ["/data"]'
    if not isinstance(value, list):
        raise Wrong(f"is {kind_of(value)}; it has to be {wanted}")
    for place in value:
        path(place, wanted)
        if place == "/" or within(place, "/usr"):
            raise Wrong(f'has "{place}" in it, which is what is protected; leave it out')
    return tuple(value)


def users(value: Any) -> str | tuple[tuple[int, str], ...]:
    """Whom the owners on a tomb are shown as."""
    wanted = '"auto", or user numbers of the tomb with users of this machine: {1000 = "alice"}'
    if value == "auto":
        return "auto"
    if not isinstance(value, dict):
        raise Wrong(f"is {kind_of(value)}; it has to be {wanted}")
    found = []
    for number, user in value.items():
        if not re.fullmatch(r"[1-9][0-9]{0,8}", number):
            raise Wrong(f'has "{number}" in it, which is not a user number; it has to be {wanted}')
        if isinstance(user, int) and not isinstance(user, bool) and user > 0:
            found.append((int(number), str(user)))
        elif isinstance(user, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", user):
            found.append((int(number), user))
        else:
            raise Wrong(f"has {user!r} for {number}; it has to be {wanted}")
    if len({user for _, user in found}) < len(found):
        raise Wrong("maps two owners to one user; name each user once")
    return tuple(found)
