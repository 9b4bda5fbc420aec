"""The owners on a tomb shown as the people of this machine: an idmapped mount.

What is on the volume stays as it is: the mount says 1001 where the volume says
1000, both ways (mount_setattr(2), MOUNT_ATTR_IDMAP). Everybody else keeps their
number, but for those whose number was taken: they get the one that became free,
so that no file is without an owner and no two people are one.
"""

import os
import pwd
import signal
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from immud.early import kernel
from immud.errors import ImmudError

Pairs = tuple[tuple[int, str], ...]
"""A number on the tomb, and the name or number of a local user."""
UserMap = str | Pairs
"""Pairs, or AUTO."""
Range = tuple[int, int, int]
"""First number on the volume, first number shown, how many: a line of user_namespaces(7)."""

AUTO = "auto"
# The numbers that are people's: UID_MIN and UID_MAX of login.defs(5).
HUMAN = range(1000, 60001)
# The last one, (uid_t) -1, means "nobody in particular" to many calls and is never mapped.
_ALL = 0xFFFFFFFF
_NO_LOGIN = ("nologin", "false")


def exchanged(wanted: Mapping[int, int]) -> dict[int, int]:
    """`wanted`, made whole: whoever's number is taken gets the one that became free.

    Raises ImmudError where two would become one.
    """
    if len(set(wanted.values())) < len(wanted):
        raise ImmudError("Two owners on the tomb cannot be the same local user; correct its map.")
    whole = dict(wanted)
    # From each number that became free, back to the one nobody takes: that chain is closed.
    for start in set(wanted) - set(wanted.values()):
        end = start
        while end in wanted:
            end = wanted[end]
        whole[end] = start
    return {inside: outside for inside, outside in whole.items() if inside != outside}


def ranges(wanted: Mapping[int, int]) -> tuple[Range, ...]:
    """All numbers there are, with those of `wanted` exchanged."""
    whole = exchanged(wanted)
    found: list[Range] = []
    at = 0
    for inside in sorted(whole):
        if inside > at:
            found.append((at, at, inside - at))
        found.append((inside, whole[inside], 1))
        at = inside + 1
    found.append((at, at, _ALL - at))
    return tuple(found)


def people(passwd: str) -> dict[int, int]:
    """Of the people in a passwd(5) who can log in, the group by the user number."""
    found = {}
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) == 7 and fields[2].isdigit() and fields[3].isdigit():
            human = int(fields[2]) in HUMAN
            if human and fields[6].rpartition("/")[2] not in _NO_LOGIN:
                found[int(fields[2])] = int(fields[3])
    return found


def _owners(tree: int) -> dict[int, int]:
    """Who owns the homes on the volume, or all of it, with the group of the first that is found."""
    top = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    try:
        found = [os.fstat(top)]
        if found[0].st_uid not in HUMAN:
            names = sorted(os.listdir(top))
            found = [os.stat(name, dir_fd=top, follow_symlinks=False) for name in names]
    finally:
        os.close(top)
    owners: dict[int, int] = {}
    for each in found:
        if stat.S_ISDIR(each.st_mode) and each.st_uid in HUMAN:
            owners.setdefault(each.st_uid, each.st_gid)
    return owners


def single(owners: Mapping[int, int], local: Mapping[int, int]) -> tuple[dict[int, int], ...]:
    """The exchange of users and of groups that makes the one owner the one local person.

    Both map a user to their group. Raises ImmudError where either is not one.
    """
    if not owners:
        return {}, {}
    if len(owners) > 1 or len(local) != 1:
        theirs = " and ".join(str(uid) for uid in sorted(owners))
        ours = " and ".join(str(uid) for uid in sorted(local)) or "nobody"
        raise ImmudError(
            f'map is "auto", but it is not clear who is who: the homes on the tomb belong to '
            f"{theirs}, and {ours} can log in here. Write a map such as {{ {min(owners)} = "
            '"NAME" } for it in the configuration.'
        )
    ((theirs_uid, theirs_gid),), ((uid, gid),) = owners.items(), local.items()
    groups = {theirs_gid: gid} if theirs_gid in HUMAN else {}
    return {theirs_uid: uid}, groups


def _named(pairs: Pairs) -> tuple[dict[int, int], ...]:
    users, groups = {}, {}
    for number, name in pairs:
        try:
            entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
        except KeyError:
            raise ImmudError(
                f"The map of the tomb names the user {name}, and there is none here; "
                "correct it, or make the user."
            ) from None
        if entry.pw_uid == 0:
            raise ImmudError("The map of the tomb makes somebody root, which it may not.")
        users[number] = entry.pw_uid
        # On Debian every person has a group of their own, of the same number.
        groups[number] = entry.pw_gid
    return users, groups


def resolve(tree: int, wanted: UserMap) -> tuple[dict[int, int], ...]:
    """The exchange of users, and of groups, for the volume mounted as `tree`.

    Raises ImmudError where it cannot be told or makes no sense.
    """
    if wanted != AUTO:
        assert not isinstance(wanted, str)
        return _named(wanted)
    with open("/etc/passwd", encoding="utf-8", errors="surrogateescape") as file:
        return single(_owners(tree), people(file.read()))


def apply(tree: int, wanted: UserMap) -> None:
    """Give the detached mount `tree` the map. Raises ImmudError, and OSError where the kernel
    or the file system cannot."""
    if not wanted:
        return
    users, groups = (exchanged(each) for each in resolve(tree, wanted))
    if not users and not groups:
        return
    with _namespace(ranges(users), ranges(groups)) as namespace:
        kernel.mount_setattr("", set_=kernel.MOUNT_ATTR_IDMAP, userns_fd=namespace, dir_fd=tree)


@contextmanager
def _namespace(users: tuple[Range, ...], groups: tuple[Range, ...]) -> Iterator[int]:
    """A descriptor of a user namespace that maps so; nobody is in it."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            kernel.unshare(kernel.CLONE_NEWUSER)
            os.write(writing, b"ready")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    try:
        if os.read(reading, 5) != b"ready":
            raise ImmudError(
                "The kernel makes no user namespace, which a map needs: look at "
                "/proc/sys/user/max_user_namespaces."
            )
        for name, lines in (("uid_map", users), ("gid_map", groups)):
            fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                # All of it in one write: a second one is refused.
                os.write(fd, "".join(f"{a} {b} {c}\n" for a, b, c in lines).encode())
            finally:
                os.close(fd)
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield namespace
        finally:
            os.close(namespace)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
