"""Mounting a file system and taking it away again, in every namespace: plain blocking calls.

Run them in a child: each may sleep in the kernel for as long as a drive likes.
"""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

from immud.config.rules import within
from immud.early import kernel, mountinfo
from immud.early.kernel import (
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
)
from immud.early.mountinfo import MountEntry
from immud.errors import Busy, DamagedVolume, ImmudError
from immud.tomb.fs import idmap
from immud.tomb.fs.filesystems import ATTRIBUTES, parameters
from immud.tomb.fs.idmap import UserMap
from immud.tomb.fs.place import has_content, opened
from immud.tomb.fs.ways import Way

BITS = {
    "ro": MOUNT_ATTR_RDONLY,
    "noexec": MOUNT_ATTR_NOEXEC,
    "noatime": MOUNT_ATTR_NOATIME,
    "nodiratime": MOUNT_ATTR_NODIRATIME,
    "strictatime": MOUNT_ATTR_STRICTATIME,
}
_LAYER = re.compile(r"(?:\\.|[^:\\])+")
ATTEMPTS = 100
"""How often a mount is looked for again whose path changed between reading and unmounting."""
# On a directory that was made to mount something there, so that it can go with the mount.
MARK = "trusted.immud.mountpoint"
# Whoever can put a file on the drive would be root with these.
REFUSED = frozenset({"suid", "dev", "remount", "bind", "rbind", "move", "loop"})


def split_options(options: Iterable[str], fstype: str) -> tuple[int, list[tuple[str, str | None]]]:
    """MOUNT_ATTR_* of the mount, and the parameters of the file system itself.

    nosuid and nodev always hold. Raises ImmudError for an option that would
    undo that, that `fstype` does not have, or that could be read as two.
    """
    attributes, left = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, []
    for option in options:
        name, equals, _ = option.partition("=")
        if not option.isprintable() or "," in option or " " in option or not name:
            raise ImmudError(f"The mount option {option!r} is not one option; write each apart.")
        if name in REFUSED:
            raise ImmudError(f"The mount option {option} is not for a tomb; remove it.")
        if not equals and name in ATTRIBUTES:
            attributes |= BITS.get(name, 0)
        else:
            left.append(option)
    pairs = (option.partition("=") for option in parameters(fstype, left))
    return attributes, [(name, value if equals else None) for name, equals, value in pairs]


def mount(
    source: str,
    fstype: str,
    target: str,
    options: list[str],
    users: UserMap = (),
) -> bool:
    """Mount `source` at `target`, whole and with its attributes, in one move.

    Returns whether the directory had something in it, which is now hidden. Raises as `build`.
    """
    tree = build(source, fstype, options, users)
    try:
        return place(tree, target)
    finally:
        os.close(tree)


def build(source: str, fstype: str, options: list[str], users: UserMap = ()) -> int:
    """A detached mount of `source`, which nobody sees: its descriptor.

    `users` are whom the owners on it are shown as (see `immud.tomb.fs.idmap`). Raises DamagedVolume
    with what the kernel says, Busy where it is in use in another way, ImmudError where what is
    asked for makes no sense, and OSError.
    """
    attributes, pairs = split_options(options, fstype)
    context = kernel.fsopen(fstype)
    try:
        kernel.fsconfig(context, kernel.FSCONFIG_SET_STRING, "source", source)
        if attributes & MOUNT_ATTR_RDONLY:
            kernel.fsconfig(context, kernel.FSCONFIG_SET_FLAG, "ro")
        for name, value in pairs:
            kind = kernel.FSCONFIG_SET_FLAG if value is None else kernel.FSCONFIG_SET_STRING
            kernel.fsconfig(context, kind, name, value)
        kernel.fsconfig(context, kernel.FSCONFIG_CMD_CREATE)
        tree = kernel.fsmount(context, attributes)
    except OSError as error:
        said = _said(context)
        if error.errno == errno.EBUSY:
            raise Busy(
                f"{source} is in use as it is: {said or error.strerror}. "
                "It can be opened another way when those who use it have ended."
            ) from error
        if error.errno == errno.EEXIST:
            # btrfs knows its devices by the identifier that is on them.
            raise Busy(
                f"{source} is a {fstype} that the kernel still has from before, as it has one that "
                "was pulled out and is held. It can be opened when those who use that have ended."
            ) from error
        raise DamagedVolume(
            f"{source} cannot be mounted as {fstype}: {said or error.strerror}."
        ) from error
    finally:
        os.close(context)
    try:
        idmap.apply(tree, users)
    except BaseException:
        os.close(tree)
        raise
    return tree


def place(tree: int, target: str) -> bool:
    """Put a detached mount at `target`; whether that hides something. Raises as `opened`."""
    directory = opened(target)
    try:
        hidden = has_content(directory)
        kernel.move_mount(tree, "", dir_fd=directory)
    finally:
        os.close(directory)
    return hidden


def _said(context: int) -> str:
    """What the file system had to say about a failure (fsopen(2))."""
    lines = []
    with suppress(OSError):
        while line := os.read(context, 8192):
            lines.append(line.decode(errors="replace")[2:].strip())
    return "; ".join(lines)


def of(devices: list[str], entries: tuple[MountEntry, ...]) -> tuple[MountEntry, ...]:
    """The mounts of file systems on `devices`, and overlays of their directories."""
    ours = [entry for entry in entries if entry.dev in devices]
    targets = {entry.target for entry in ours} - {"/"}
    overlays = [
        entry
        for entry in entries
        if entry.fstype == "overlay"
        and any(within(layer, target) for layer in _layers(entry) for target in targets)
    ]
    return (*ours, *overlays)


def _layers(overlay: MountEntry) -> Iterator[str]:
    """The directories an overlay is made of, as who made it named them."""
    for option in overlay.super_options.split(","):
        name, _, value = option.partition("=")
        if name == "lowerdir":
            # Several, with a colon between them, and `\\:` for one in a name.
            yield from (re.sub(r"\\(.)", r"\1", part) for part in _LAYER.findall(value))
        elif name in ("lowerdir+", "datadir+", "upperdir", "workdir"):
            yield value


def numbers(devices: list[str], entries: tuple[MountEntry, ...]) -> set[int]:
    """The numbers of those mounts, for the files that do not show that they are on them.

    stat(2) has another device number for each subvolume of btrfs, and for some files of an
    overlay, than the mount table; and it fails on an xfs that has shut down.
    """
    return {entry.id for entry in of(devices, entries)}


def anonymous(number: str) -> bool:
    """Whether it is the number of a file system without a block device of its own.

    Another file system gets it as soon as this one is gone.
    """
    return number.startswith("0:")


def tables() -> dict[str, tuple[MountEntry, ...]]:
    """The mount table of every mount namespace that a process is in, ours first."""
    found = {os.readlink("/proc/self/ns/mnt"): mountinfo.read()}
    for pid, namespace in _namespaces():
        if namespace not in found:
            with suppress(OSError):
                found[namespace] = mountinfo.read(pid)
    return found


def _namespaces() -> Iterator[tuple[int, str]]:
    """Each process, any of which may end now, and the name of its mount namespace."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                yield int(name), os.readlink(f"/proc/{name}/ns/mnt")


def everywhere(devices: list[str], sources: list[str]) -> tuple[list[str], list[int]]:
    """In whichever namespace: all device numbers of btrfs on `sources`, and of its mounts.

    `devices` are those numbers that are known; a mount has one as `numbers` gives it.
    """
    found = tables().values()
    btrfs = {e.dev for table in found for e in table if on_btrfs(e, sources)}
    known = [*devices, *sorted(btrfs - set(devices))]
    return known, sorted({number for table in found for number in numbers(known, table)})


def on_btrfs(entry: MountEntry, sources: Iterable[str]) -> bool:
    """Whether a mount is of a btrfs made on one of `sources`: only by that is it known."""
    # A FUSE may say that it is from anywhere, and is anybody's.
    return entry.fstype == "btrfs" and entry.source in sources


def take_away(
    devices: list[str], flags: int = 0, proc: int | None = None, *, near: bool = False
) -> int:
    """Unmount all there is of `devices` in this namespace; how many mounts that were.

    Last first, for what was mounted later may be on top. With MNT_DETACH a mount
    goes with all that is mounted below it, and one that cannot be reached is left; without,
    it is an ImmudError when all the others are gone. With `near` those are left to which the
    way leads past a server. The working directory is / afterwards.
    """
    count = 0
    for _ in range(ATTEMPTS):
        moved, wrong = False, ""
        table = mountinfo.read(proc=proc)
        for entry in reversed(of(devices, table)):
            way = Way(entry, table)
            if near and way.asks:
                continue
            try:
                _unmount(way, os.path.basename(entry.target), flags, tidy=proc is None)
                count += 1
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    moved = True
                # Gone with one before, or locked inside a container, which goes with its processes.
                elif error.errno not in (errno.EINVAL, errno.ENOENT):
                    wrong = f"{entry.target} cannot be reached to unmount it: {error.strerror}"
        if not moved:
            break
    if wrong and not flags & kernel.MNT_DETACH:
        raise ImmudError(f"{wrong}. Unmount what is mounted over the way to it; see: findmnt")
    return count


def _unmount(way: Way, name: str, flags: int, *, tidy: bool) -> None:
    """umount2(2), whoever owns a directory on the way and puts a link in its place meanwhile.

    The path was read a moment ago, and a link would lead to any other mount there is. Raises
    OSError: ELOOP and ENOTDIR where the way has changed.
    """
    directory = way.opened()
    try:
        # umount2 has no variant with a descriptor, and /proc may be missing in a container. Its
        # whole root may be on the tomb.
        os.fchdir(directory)
        kernel.umount2(name or ".", flags)
        if tidy:
            _tidy(name)
    finally:
        os.close(directory)
        os.chdir("/")


def _tidy(target: str) -> None:
    """Remove the empty directory that was made for this mount, and no other."""
    with suppress(OSError):
        os.getxattr(target, MARK, follow_symlinks=False)
        os.rmdir(target)


def _others() -> Iterator[tuple[int, int]]:
    """One (pid, descriptor of its mount namespace) for every namespace but ours."""
    seen = {os.readlink("/proc/self/ns/mnt")}
    for pid, namespace in _namespaces():
        if namespace not in seen:
            with suppress(OSError):
                fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
                seen.add(namespace)
                yield pid, fd


def take_away_elsewhere(devices: list[str], flags: int = 0) -> int:
    """The same in all other mount namespaces; the caller is not at home afterwards."""
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    count = 0
    for pid, namespace in list(_others()):
        # The process may be gone, its namespace with it.
        with suppress(OSError, ImmudError):
            if of(devices, mountinfo.read(pid, proc)):
                kernel.setns(namespace)
                count += take_away(devices, flags, proc)
        os.close(namespace)
    os.close(proc)
    return count
