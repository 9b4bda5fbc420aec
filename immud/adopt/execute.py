"""Perform the steps, one function each, all below the clone of /."""

import asyncio
import errno
import os
import shlex
import shutil
from collections.abc import Callable
from contextlib import suppress
from typing import assert_never

from immud.adopt import copying, fstab
from immud.adopt.facts import parent
from immud.adopt.root import at, flush, own_etc, relative, sync_directory
from immud.adopt.steps import (
    Across,
    Attach,
    Copy,
    Detach,
    Exchange,
    Idle,
    MakeDirectory,
    MakeHidden,
    MakeLink,
    MountAgain,
    Place,
    ReloadProfiles,
    ReloadUnits,
    RemoveEmpty,
    RemoveFile,
    RemoveHidden,
    RemoveKept,
    RemoveLink,
    SetAside,
    SetFstab,
    Step,
    Sync,
    TakeBack,
    Unchanged,
    Unmount,
    WriteFile,
)
from immud.early import kernel
from immud.early.execute import set_attributes
from immud.early.observe import FSTAB
from immud.errors import Busy, ImmudError, OtherFileSystem, TargetExists
from immud.run import run

_KINDS: dict[int | None, type[ImmudError]] = {
    errno.EXDEV: OtherFileSystem,
    errno.EBUSY: Busy,
    errno.EEXIST: TargetExists,
    errno.ENOTEMPTY: TargetExists,
}
_REASONS = {
    errno.EXDEV: "the two are not on one file system (or it is an overlay, which cannot do it)",
    errno.EBUSY: "something has been mounted there meanwhile; unmount it",
    errno.EINVAL: "this file system cannot exchange two names",
    errno.ENOTEMPTY: "something has been put into it meanwhile",
    errno.EEXIST: "something has appeared there meanwhile",
    errno.EROFS: "the file system itself is read-only; the kernel's log (`journalctl -k`) says why",
}


def carry_out(
    root: int,
    steps: tuple[Step, ...],
    progress: Callable[[Step], None] | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> None:
    """Perform `steps` in their order; `root` is what `open_root` gives.

    `told` hears in a few words how far a step is that takes long.

    Raises an ImmudError at the first that fails, with its row as it was before. Where
    a process ends in between, the next adopt or release goes on from what it left.
    """
    for number, step in enumerate(steps):
        if progress:
            progress(step)
        try:
            perform(root, step, told)
        except OSError as error:
            undo(root, steps[:number], step)
            raise _explained(step, error) from error
        except ImmudError as error:
            if not isinstance(step, Copy | Unchanged):
                raise
            kind = Busy if isinstance(error, Busy) else ImmudError
            raise kind(f"{error}\n{_incomplete(step)}") from error


def undo(root: int, done: tuple[Step, ...], failed: Step) -> None:
    """Take back what leads up to an exchange that cannot be, or that turned out to be wrong."""
    match failed:
        case Exchange(path=path, other=other):
            links = [s for s in done if isinstance(s, MakeLink) and s.path == other]
            back = [RemoveLink(link.path, link.content) for link in links]
            mounts = [s for s in done if isinstance(s, Detach) and s.path == path]
            todo: list[Step] = [*back, *(Attach(mount.path, mount.what) for mount in mounts)]
            todo += _put_back(done)
        case Unmount():
            todo = _put_back(done)
        case RemoveEmpty(path=path):
            # Somebody put something into a directory while it was giving way to a link.
            swaps = [s for s in done if isinstance(s, Exchange) and s.other == path]
            links = [s for s in done if isinstance(s, MakeLink) and s.path == path]
            todo = [*swaps, *(RemoveLink(link.path, link.content) for link in links)]
        case _:
            todo = []
    for step in todo:
        with suppress(OSError):
            perform(root, step)


def _put_back(done: tuple[Step, ...]) -> list[Step]:
    """What a file system needs to be mounted just where it was, and at the next boot as well."""
    last: list[Step] = []
    for step in reversed(done):
        match step:
            case SetFstab(path=path, place=place):
                last.append(SetFstab(place, path))
            case MakeLink(path=path, content=content):
                last.append(RemoveLink(path, content))
            case Unmount(path=path):
                last += [MountAgain(s.place, path) for s in done if isinstance(s, MountAgain)]
            case MountAgain(place=place):
                last.append(Unmount(place))
            case Sync():
                continue
            case _:
                break
    return last


def perform(root: int, step: Step, told: Callable[[str], None] = lambda _: None) -> None:
    """Perform one step. Raises OSError, or ImmudError where a thing is not what it has to be."""
    match step:
        case MakeDirectory():
            make_directory(root, step)
        case MakeLink():
            os.symlink(step.content, relative(step.path), dir_fd=root)
        case RemoveEmpty():
            name, fd = at(root, step.path)
            os.rmdir(name, dir_fd=fd)
        case RemoveLink():
            remove_link(root, step)
        case Exchange():
            kernel.renameat2(
                relative(step.path), relative(step.other), kernel.RENAME_EXCHANGE, dir_fd=root
            )
        case Sync():
            sync(root, step)
        case Detach():
            detach(root, step)
        case Attach():
            attach(step)
        case WriteFile():
            write_file(step)
        case RemoveFile():
            remove_file(step)
        case ReloadProfiles():
            reload_profiles()
        case _:
            _perform_across(root, step, told)


def _perform_across(  # noqa: PLR0912 - one for each
    root: int, step: Across, told: Callable[[str], None]
) -> None:
    """Those of two file systems."""
    match step:
        case MakeHidden():
            copying.make_hidden(root, step)
        case Idle():
            copying.idle(step)
        case Copy():
            copying.copy(root, step, told)
        case Unchanged():
            copying.unchanged(root, step)
        case Place():
            copying.place(root, step)
        case TakeBack():
            copying.take_back(root, step)
        case SetAside():
            copying.set_aside(root, step)
        case RemoveHidden():
            copying.remove_hidden(root, step)
        case RemoveKept():
            name, fd = at(root, step.path)
            shutil.rmtree(name, dir_fd=fd)
        case MountAgain(path=path, place=place):
            mount_again(path, place)
        case Unmount(path=path):
            kernel.umount2(path)
        case SetFstab(path=path, place=place):
            fstab.rewrite(root, path, place)
        case ReloadUnits():
            with suppress(OSError, ImmudError):
                asyncio.run(run("systemctl", "daemon-reload"))
        case _:
            assert_never(step)


def make_directory(root: int, step: MakeDirectory) -> None:
    """mkdir(2) with exactly the mode; in /run its parents, too, are made where they are missing."""
    mask = os.umask(0)
    try:
        if step.path.startswith("/run/"):
            os.makedirs(parent(step.path), 0o755, exist_ok=True)
        name, fd = at(root, step.path)
        os.mkdir(name, step.mode, dir_fd=fd)
    finally:
        os.umask(mask)


def remove_link(root: int, step: RemoveLink) -> None:
    """unlink(2), after making sure once more that the link is immud's."""
    if os.readlink(relative(step.path), dir_fd=root) != step.content:
        raise TargetExists(f"{step.path} is no longer immud's link to {step.content}")
    os.unlink(relative(step.path), dir_fd=root)


def sync(root: int, step: Sync) -> None:
    """fsync(2) of each directory."""
    for path in step.paths:
        flush(root, path)
        if path == parent(FSTAB) and (own := own_etc(root)):
            sync_directory(own)


def detach(root: int, step: Detach) -> None:
    """Lazily, so that files open in it stay open; only a mount that shows what is below it."""
    visible = os.stat(step.path)
    below = os.stat(relative(step.what), dir_fd=root, follow_symlinks=False)
    if not os.path.samestat(visible, below):
        raise OtherFileSystem(f"what is mounted at {step.path} is not immud's: unmount it")
    kernel.umount2(step.path, kernel.MNT_DETACH)


def attach(step: Attach) -> None:
    """Clone, make writable while nobody sees it, then move into place."""
    tree = kernel.open_tree(step.what, kernel.OPEN_TREE_CLONE)
    try:
        set_attributes(tree, readonly=False)
        kernel.move_mount(tree, step.path)
    finally:
        os.close(tree)


def mount_again(path: str, place: str) -> None:
    """With the options it has, and whoever uses it."""
    tree = kernel.open_tree(path, kernel.OPEN_TREE_CLONE)
    try:
        kernel.move_mount(tree, place)
    finally:
        os.close(tree)


def write_file(step: WriteFile) -> None:
    """Write aside, fsync, rename: a reader sees the old file or the new one."""
    aside = f"{parent(step.path)}/.immud"
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(step.text.encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())
    os.rename(aside, step.path)
    sync_directory(parent(step.path))


def remove_file(step: RemoveFile) -> None:
    """unlink(2) of immud's own file, and of what an interrupted write left beside it."""
    for path in (f"{parent(step.path)}/.immud", step.path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
    sync_directory(parent(step.path))


def reload_profiles() -> None:
    """Ask systemd to reload AppArmor; the new aliases count from the next boot on otherwise."""
    with suppress(OSError, ImmudError):
        asyncio.run(run("systemctl", "reload", "apparmor.service"))


def _explained(step: Step, error: OSError) -> ImmudError:
    reason = error.strerror or str(error)
    if not isinstance(step, Copy):
        reason = _REASONS.get(error.errno or 0, reason)
    kind = _KINDS.get(error.errno, ImmudError)
    text = f"could not {step.describe()}: {reason}. Nothing is lost, and what was done stays."
    return kind(f"{text}\n{_incomplete(step)}" if isinstance(step, Copy | Unchanged) else text)


def _incomplete(step: Copy | Unchanged) -> str:
    """Where the copy is that nobody would look for, since its name is hidden."""
    hidden = parent(step.place)
    with suppress(OSError):
        lease = os.statvfs(parent(hidden)).f_flag & os.ST_RDONLY
        command = f"{'immud unlock -- ' if lease else ''}rm -r {shlex.quote(hidden)}"
        return (
            f"{step.path} is as it was, and in use. What was copied of it is in {hidden}, for the "
            f"next run to resume. To discard it instead:\n    {command}"
        )
    return ""
