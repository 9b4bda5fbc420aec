"""Directories and files of an open tomb, shown at other places of the host as well.

Either end may be in somebody's hands: the tomb's is walked so that nothing on it leads out, and on
the host no link is followed. Each bind is made aside, with its attributes, and put in place in one
move; it is there wholly or not at all. They are mounts of the tomb's own file system, and are taken
away with it: see `mounts.take_away`.
"""

import os
import posixpath
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from immud.child import in_child
from immud.early import kernel, mountinfo
from immud.early.kernel import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from immud.early.mountinfo import MountEntry
from immud.errors import ImmudError
from immud.model import Problem, Severity
from immud.tomb.dyne import bindhooks
from immud.tomb.fs import beneath
from immud.tomb.fs.mounts import MARK
from immud.tomb.fs.place import has_content
from immud.tomb.luks import dm
from immud.tomb.volume import Volume

_HOST = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_HOME = _HOST | RESOLVE_BENEATH | RESOLVE_NO_XDEV
_PATH = os.O_PATH | os.O_NOFOLLOW

# severity, code, text: what marshal carries back from the child.
Note = tuple[str, str, str]


async def attach(volume: Volume, mapping: dm.Mapping) -> None:
    """Put in place what is not there yet; whatever is in the way becomes a problem."""
    config = volume.config
    try:
        notes: list[Note] = await in_child(
            _attach, volume.target, volume.devices(mapping), list(config.binds), config.bind_hooks
        )
    except (ImmudError, OSError) as error:
        notes = [(Severity.WARNING, "bind-failed", f"Its binds are not in place: {error}")]
    volume.notes = tuple(
        Problem(Severity(severity), code, f"Tomb {config.name}: {text}", {"tomb": config.name})
        for severity, code, text in notes
    )


def _attach(
    mount_point: str, devices: list[str], binds: list[bindhooks.Pair], hooks: str | bool
) -> list[Note]:
    """In a child: the binds of the configuration, and those of the tomb itself where allowed."""
    entry = mountinfo.top(mountinfo.read(), mount_point)
    if entry is None or entry.dev not in devices:
        return []
    notes: list[Note] = []
    with _opened(os.open(mount_point, _PATH | os.O_DIRECTORY)) as top:
        with _opened(os.open("/", _PATH | os.O_DIRECTORY)) as root:
            for path, target in binds:
                notes += _bind(entry, top, path, (root, "/", target[1:], _HOST))
        notes += _hooks(entry, top, hooks)
    return notes


def _hooks(entry: MountEntry, top: int, allowed: str | bool) -> list[Note]:
    notes: list[Note] = []
    there = [name for name in (bindhooks.FILE, bindhooks.NEVER) if _exists(top, name)]
    if bindhooks.NEVER in there:
        text = f"{bindhooks.NEVER} on it is not executed; what it did can be a hook in /etc/immud."
        notes.append((Severity.NOTICE, "exec-hooks", text))
    if bindhooks.FILE not in there:
        return notes
    if not allowed:
        text = f"{bindhooks.FILE} on it is not looked at; bind_hooks in its table allows it."
        return [*notes, (Severity.NOTICE, "bind-hooks", text)]
    try:
        pairs, wrong = bindhooks.parse(beneath.read(top, bindhooks.FILE))
        home = _home(top, allowed)
        with _opened(os.open(home, _PATH | os.O_DIRECTORY)) as place:
            for path, target in pairs:
                notes += _bind(entry, top, path, (place, home, target, _HOME))
    except (ImmudError, OSError) as error:
        wrong = (f"{bindhooks.FILE} cannot be followed: {_why(error)}",)
    return [*notes, *((Severity.WARNING, "bind-failed", text) for text in wrong)]


def _exists(top: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=top)
    except OSError:
        return False
    return True


def _home(top: int, user: str | bool) -> str:
    """The home of a user on this machine: the one that is named, or the tomb's single owner."""
    try:
        found = pwd.getpwnam(user) if isinstance(user, str) else pwd.getpwuid(_owner(top))
    except KeyError:
        who = f"user {user}" if isinstance(user, str) else f"user with the number {_owner(top)}"
        raise ImmudError(f'there is no {who} here; name one: bind_hooks = "USER"') from None
    home = os.path.realpath(found.pw_dir)
    state = os.stat(home)
    if state.st_uid != found.pw_uid or not stat.S_ISDIR(state.st_mode):
        raise ImmudError(f"{home} is not a directory that belongs to {found.pw_name}.")
    return home


def _owner(top: int) -> int:
    """Whose tomb it is: the owner of its top directory or, where that is root, of all in it."""
    uid = os.fstat(top).st_uid
    if uid:
        return uid
    with _opened(os.open(".", beneath.DIRECTORY | os.O_CLOEXEC, dir_fd=top)) as listed:
        names = os.listdir(listed)
    owners = {os.lstat(name, dir_fd=top).st_uid for name in names} - {0}
    if len(owners) != 1:
        raise ImmudError(
            f'{len(owners)} users have something on the tomb; name one: bind_hooks = "USER"'
        )
    return owners.pop()


def _bind(
    entry: MountEntry, top: int, path: str, place: tuple[int, str, str, int]
) -> Iterator[Note]:
    """Show `path` below `top` at a place: a directory, its name, a path below it, RESOLVE_*."""
    _, above, below, _ = place
    target = posixpath.join(above, below)
    try:
        if not _is_there(entry, path, target) and _show(entry, top, path, place):
            text = (
                f"{target} has something of its own in it, which is hidden by the bind of {path}."
            )
            yield Severity.NOTICE, "bind-hides-files", text
    except (ImmudError, OSError) as error:
        yield Severity.WARNING, "bind-failed", f"{path} is not shown at {target}: {_why(error)}"


def _is_there(entry: MountEntry, path: str, target: str) -> bool:
    """Whether the bind is in place already. Raises ImmudError where another mount is."""
    found = mountinfo.top(mountinfo.read(), target)
    if found is None:
        return False
    if found.dev == entry.dev and found.root == posixpath.join(entry.root, path):
        return True
    raise ImmudError(f"{found.source} is mounted there already.")


def _show(entry: MountEntry, top: int, path: str, place: tuple[int, str, str, int]) -> bool:
    """Make one bind; whether something is hidden by it."""
    with _opened(beneath.open_beneath(top, path, os.O_PATH)) as source:
        kind = stat.S_IFMT(os.fstat(source).st_mode)
        if kind not in (stat.S_IFDIR, stat.S_IFREG):
            raise ImmudError("it is neither a directory nor a file.")
        with _opened(_target(place, directory=kind == stat.S_IFDIR)) as target:
            found = os.fstat(target)
            if stat.S_IFMT(found.st_mode) != kind:
                raise ImmudError("one is a directory, and the other is not.")
            if found.st_dev == os.fstat(top).st_dev:
                raise ImmudError("that place is on the tomb itself.")
            hides = bool(found.st_size) if kind == stat.S_IFREG else has_content(target)
            _move(source, target, read_only=entry.read_only)
            return hides


def _move(source: int, target: int, *, read_only: bool) -> None:
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (MOUNT_ATTR_RDONLY if read_only else 0)
    with _opened(
        kernel.open_tree("", kernel.OPEN_TREE_CLONE | kernel.AT_EMPTY_PATH, dir_fd=source)
    ) as tree:
        # As a peer of the tomb's own mount it would have whatever is mounted on that.
        kernel.mount_setattr("", set_=attributes, propagation=kernel.MS_PRIVATE, dir_fd=tree)
        kernel.move_mount(tree, "", dir_fd=target)


def _target(place: tuple[int, str, str, int], *, directory: bool) -> int:
    """A descriptor of the place itself; a directory that is not there is made."""
    base, above, below, resolve = place
    try:
        return _walk(base, above, below, resolve)
    except FileNotFoundError:
        if not directory:
            raise ImmudError("there is no file at that place; make an empty one.") from None
    way, _, name = below.rpartition("/")
    with _opened(_walk(base, above, way, resolve) if way else os.dup(base)) as parent:
        os.mkdir(name, 0o755, dir_fd=parent)
    made = _walk(base, above, below, resolve)
    # A file system without such attributes keeps an empty directory.
    with suppress(OSError):
        os.setxattr(f"/proc/self/fd/{made}", MARK, b"")
    return made


def _walk(base: int, above: str, path: str, resolve: int) -> int:
    try:
        return kernel.openat2(base, path, os.O_PATH, resolve=resolve)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ImmudError(
            f"{posixpath.join(above, path)} is behind a link or on another file system, "
            "or is no directory on the way."
        ) from error


def _why(error: ImmudError | OSError) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'it'}: {error.strerror}."
    return str(error)


@contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
