"""The volatile fallback: a tmpfs with a home for each user, made aside and put in place whole.

Plain calls that may block (a user database may be across a network): for a child.
What is written to it lasts until power-off: tombs are mounted over it, and it
shows again when they go, so that nobody ever meets a place without a home.
"""

import fcntl
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from immud.early import kernel, mountinfo
from immud.early.kernel import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID
from immud.tomb.absence import absent
from immud.tomb.absence.absent import Home, User
from immud.tomb.fs import mounts
from immud.tomb.fs.place import has_content, opened

LOCK = "/run/immud/absent.lock"
SKELETON = "/etc/skel"
DATABASE = "/etc/passwd"
# For who has no terminal to be told on: beside their first files, at the top of the list.
NOTE = "LOST-AT-POWER-OFF.txt"


def decide(target: str, configured: str, files: bool) -> tuple[str, list[tuple[str, int, int]]]:
    """What the place is to be, and the homes it is to have for that.

    Empty where something is mounted there: a tomb, or the fallback of before. With
    `files` only /etc/passwd is asked for users.
    """
    if mountinfo.top(mountinfo.read(), target):
        return "", []
    directory = opened(target)
    try:
        empty = not has_content(directory)
    finally:
        os.close(directory)
    if not configured and not empty:
        return str(absent.Absent.DIRECTORY), []
    homes = absent.homes(_users(files=files), target, os.path.realpath)
    mode = absent.choose(configured, empty=empty, lived_in=bool(homes))
    return str(mode), [(home.name, home.uid, home.gid) for home in homes]


def put(
    target: str, size: str, homes: list[tuple[str, int, int]], note: str, below: list[str]
) -> bool:
    """Make the fallback and put it in place, unless something is mounted there; whether it was.

    What is mounted `below` would be hidden by it, and is taken away last of all.
    """
    with _locked():
        if mountinfo.top(mountinfo.read(), target):
            return False
        tree = build(size, tuple(Home(*home) for home in homes), note)
        try:
            mounts.take_away(below, kernel.MNT_DETACH)
            mounts.place(tree, target)
        finally:
            os.close(tree)
        return True


@contextmanager
def _locked() -> Iterator[None]:
    """One at a time: the daemon, and what holds logins back at boot until this is done."""
    os.makedirs(os.path.dirname(LOCK), exist_ok=True)
    fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _users(*, files: bool) -> list[User]:
    if not files:
        return [User(entry.pw_uid, entry.pw_gid, entry.pw_dir) for entry in pwd.getpwall()]
    found = []
    with open(DATABASE, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.rstrip("\n").split(":")
            if len(fields) == 7 and fields[2].isdigit() and fields[3].isdigit():
                found.append(User(int(fields[2]), int(fields[3]), fields[5]))
    return found


def build(size: str, homes: tuple[Home, ...], note: str, skeleton: str = SKELETON) -> int:
    """A detached tmpfs with these homes: its descriptor. Raises OSError: ENOSPC if it is small."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, inodes = absent.limits(size, memory)
    context = kernel.fsopen("tmpfs")
    try:
        for name, value in (
            ("source", absent.SOURCE),
            ("size", str(limit)),
            ("nr_inodes", str(inodes)),
            ("mode", "0755"),
        ):
            kernel.fsconfig(context, kernel.FSCONFIG_SET_STRING, name, value)
        kernel.fsconfig(context, kernel.FSCONFIG_CMD_CREATE)
        tree = kernel.fsmount(context, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    finally:
        os.close(context)
    try:
        for home in homes:
            _furnish(tree, home, note, skeleton)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _furnish(tree: int, home: Home, note: str, skeleton: str) -> None:
    if home.name:
        os.mkdir(home.name, 0o700, dir_fd=tree)
    fd = os.open(home.name or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    try:
        if os.path.isdir(skeleton):
            _copy(skeleton, fd, home)
        _write(fd, NOTE, note.encode(), 0o644, home)
        os.fchmod(fd, 0o700)
        os.fchown(fd, home.uid, home.gid)
    finally:
        os.close(fd)


def _copy(source: str, into: int, home: Home) -> None:
    """Files, directories and links of `source` into the directory `into`, which nobody sees yet."""
    with os.scandir(source) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            mode = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) & 0o777
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), entry.name, dir_fd=into)
                os.chown(entry.name, home.uid, home.gid, dir_fd=into, follow_symlinks=False)
            elif entry.is_dir():
                os.mkdir(entry.name, 0o700, dir_fd=into)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
                fd = os.open(entry.name, flags, dir_fd=into)
                try:
                    _copy(entry.path, fd, home)
                    os.fchmod(fd, mode)
                    os.fchown(fd, home.uid, home.gid)
                finally:
                    os.close(fd)
            elif entry.is_file():
                with open(entry.path, "rb") as file:
                    _write(into, entry.name, file.read(), mode, home)


def _write(into: int, name: str, content: bytes, mode: int, home: Home) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with open(os.open(name, flags, 0o600, dir_fd=into), "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fchown(file.fileno(), home.uid, home.gid)
