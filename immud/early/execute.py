"""Performing the steps: each built aside, then put into place in one move.

Before: the tree as the initrd left it, / writable. After: what the plan says.
Every failure has a decided outcome: the step is left out, said, and the next
one taken, but / turns read-only only if everything that has to stay writable
below it does.
"""

import errno
import os

from immud.early import kernel
from immud.early.steps import Problem, Step

_BASE = ("/usr", "/etc", "/var")


class Trees:
    """Detached mounts by the step they are for, and how they are made.

    `legacy` does with mount(2) what Linux 5.12 does in one call; there a
    writable window of some microseconds is open, and the read-only attribute
    reaches no other mount namespace.
    """

    def __init__(self, legacy: bool = False) -> None:
        self.legacy = legacy
        self._built: dict[Step, int] = {}

    def build(self, step: Step) -> None:
        """Make the detached mount of an `attach` step, attributes and all."""
        if self.legacy and step.source.startswith("/"):
            return
        if step.source.startswith("/") and os.path.isdir(step.source):
            fd = kernel.open_tree(step.source, kernel.OPEN_TREE_CLONE | kernel.AT_RECURSIVE)
        else:
            from immud.early import sources  # noqa: PLC0415 - only where a source is elsewhere

            fd = sources.tree(step.source, readonly=step.readonly)
        try:
            set_attributes(fd, readonly=step.readonly)
        except OSError:
            os.close(fd)
            raise
        self._built[step] = fd

    def fd(self, step: Step) -> int | None:
        """The detached mount that was built for `step`."""
        return self._built.get(step)

    def drop(self, step: Step) -> None:
        """Close the mount built for `step`; the kernel takes it down."""
        if (fd := self._built.pop(step, None)) is not None:
            os.close(fd)

    def place(self, step: Step) -> None:
        """Put the mount built for `step` where it belongs."""
        if step not in self._built:
            self.build(step)
        if (fd := self._built.pop(step, None)) is not None:
            try:
                kernel.move_mount(fd, step.target)
            finally:
                os.close(fd)
        else:
            flags = kernel.MS_BIND | kernel.MS_REC
            kernel.mount(step.source, step.target, None, flags)
            # The bind inherits the attribute either way, so say it either way.
            readonly = kernel.MS_RDONLY if step.readonly else 0
            kernel.mount(None, step.target, None, kernel.MS_REMOUNT | kernel.MS_BIND | readonly)


def set_attributes(fd: int, *, readonly: bool) -> None:
    """Make a detached tree read-only or writable, and a peer group of its own.

    A clone inherits the attribute and joins the peer group of what it was cloned
    from, where mounts made below one would show up below the other as well.
    Read-only goes down the tree; writable does not: a read-only submount was
    somebody's decision.
    """
    kernel.mount_setattr("", dir_fd=fd, propagation=kernel.MS_PRIVATE, recursive=True)
    kernel.mount_setattr("", dir_fd=fd, propagation=kernel.MS_SHARED, recursive=True)
    if readonly:
        kernel.mount_setattr("", dir_fd=fd, set_=kernel.MOUNT_ATTR_RDONLY, recursive=True)
    else:
        kernel.mount_setattr("", dir_fd=fd, clear=kernel.MOUNT_ATTR_RDONLY)


def perform(
    steps: tuple[Step, ...], trees: Trees, refuse: dict[str, str] | None = None
) -> list[Problem]:
    """Perform `steps` in order and return what went wrong.

    All clones are made before the first is placed, so that none shows another
    one's effects. `refuse` maps targets whose source was found unusable to why.
    """
    problems: list[Problem] = []
    failed = dict(refuse or {})
    for step in steps:
        if step.op == "attach" and step.target not in failed and trees.fd(step) is None:
            if step.source != step.target and step.target not in _BASE:
                continue  # its source may be in a /var that is yet to be placed
            try:
                trees.build(step)
            except (OSError, ValueError) as error:
                failed[step.target] = str(error)
    for step in steps:
        try:
            if step.target in failed:
                raise OSError(errno.ENODATA, failed[step.target], step.target)
            if step.op == "readonly" and failed:
                raise OSError(errno.EBUSY, "something below it could not be kept writable", "/")
            _ACTIONS[step.op](step, trees)
        except OSError as error:
            if step.op == "attach" or _left_on_root(step):
                failed.setdefault(step.target, str(error))
            problems.append(_problem(step, error))
    return problems


def _left_on_root(step: Step) -> bool:
    """Whether what people write to is now on the root file system, which is to be read-only.

    A /tmp whose tmpfs is missing; a directory whose place a link did not take.
    """
    if step.op == "tmpfs":
        return True
    link = step.op in ("link", "relink", "swap")
    return link and os.path.isdir(step.target) and not os.path.islink(step.target)


def _attach(step: Step, trees: Trees) -> None:
    if step.source != step.target and os.path.islink(step.target):
        return  # the other /usr has its own link there
    trees.place(step)


def _directory(step: Step, _trees: Trees) -> None:
    """Make a directory and the ones above it; a dangling link in the way is not followed."""
    try:
        os.mkdir(step.target, step.mode)
    except FileExistsError:
        if not os.path.isdir(step.target):
            raise
        return
    except FileNotFoundError:
        os.makedirs(os.path.dirname(step.target), 0o755, exist_ok=True)
        os.mkdir(step.target, step.mode)
    os.chmod(step.target, step.mode)  # whatever the umask made of it


def _link(step: Step, _trees: Trees) -> None:
    os.symlink(step.source, step.target)


def _unlink(step: Step, _trees: Trees) -> None:
    """Remove a link, after making sure that it is the one that was looked at."""
    if os.readlink(step.target) != step.source:
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), step.target)
    os.unlink(step.target)


def _relink(step: Step, _trees: Trees) -> None:
    """Exchange an empty directory with a link, then remove it; if it filled up, swap back."""
    aside = f"{os.path.dirname(step.target).rstrip('/')}/.immud.{os.path.basename(step.target)}"
    if os.path.islink(aside):
        os.unlink(aside)  # of a run that was cut off before its exchange
    if os.path.isdir(aside):
        os.rmdir(aside)  # of one that was cut off after it
    os.symlink(step.source, aside)
    kernel.renameat2(aside, step.target, kernel.RENAME_EXCHANGE)
    try:
        os.rmdir(aside)
    except OSError:
        kernel.renameat2(aside, step.target, kernel.RENAME_EXCHANGE)
        os.unlink(aside)
        raise


def _swap(step: Step, _trees: Trees) -> None:
    """Exchange the directory at `target` with a link prepared where it is to go."""
    place = "/" + step.source
    os.makedirs(os.path.dirname(place), 0o755, exist_ok=True)
    if os.path.isdir(place) and not os.path.islink(place):
        os.rmdir(place)
    if not os.path.islink(place):
        os.symlink(step.source, place)
    kernel.renameat2(step.target, place, kernel.RENAME_EXCHANGE)


def _tmpfs(step: Step, _trees: Trees) -> None:
    _directory(step, _trees)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("tmpfs", step.target, "tmpfs", flags, f"mode={step.mode:o},size=50%")


def _readonly(step: Step, trees: Trees) -> None:
    if trees.legacy:
        kernel.mount(None, step.target, None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY)
    else:
        kernel.mount_setattr(step.target, set_=kernel.MOUNT_ATTR_RDONLY)
    from immud.early import namespaces  # noqa: PLC0415 - read only once the host is done

    namespaces.follow(legacy=trees.legacy)


_ACTIONS = {
    "attach": _attach,
    "directory": _directory,
    "unlink": _unlink,
    "link": _link,
    "relink": _relink,
    "swap": _swap,
    "tmpfs": _tmpfs,
    "readonly": _readonly,
}


def _problem(step: Step, error: OSError) -> Problem:
    data = (
        ("path", step.target),
        ("errno", errno.errorcode.get(error.errno or 0, str(error.errno))),
    )
    reason = error.strerror or str(error)
    if step.op == "readonly":
        from immud.early import namespaces  # noqa: PLC0415 - on failure alone

        holders = namespaces.writers() if error.errno == errno.EBUSY else ()
        named = f"; open for writing: {', '.join(holders)}" if holders else ""
        text = f"/ stays writable: {reason}{named}"
        return ("error", "root-writable", text, (*data, ("holders", ", ".join(holders))))
    if step.op == "attach" and step.readonly:
        return ("error", "usr-writable", f"{step.target} stays as it was: {reason}", data)
    if step.op == "attach":
        return ("error", "mount-failed", f"{step.target} could not be mounted: {reason}", data)
    return ("error", f"{step.op}-failed", f"{step.describe()}: {reason}", data)
