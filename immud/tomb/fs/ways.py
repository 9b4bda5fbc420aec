"""The way to a mount: which others lie on it, and how to get there where one of them hides it.

Whoever may mount something over a directory on the way, as anybody may a FUSE over their own home,
hides what is below from every walk. Such a mount may not let root in either, and may not answer.
"""

import errno
import os
from contextlib import ExitStack

from immud.early import kernel, mountinfo
from immud.early.kernel import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS
from immud.early.mountinfo import MountEntry
from immud.tomb.fs import handles
from immud.watch.table import asks

_AS_IT_IS = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_PATH | os.O_DIRECTORY


class Way:
    """The way to the directory that `entry` of `table` is mounted in, found without a walk.

    `asks` is whether a server is asked on it.
    """

    def __init__(self, entry: MountEntry, table: tuple[MountEntry, ...]) -> None:
        self._above = os.path.dirname(entry.target)
        passed = mountinfo.way(table, self._above)
        base = _base(entry, table)
        self._hidden = bool(base and passed and passed[-1].id != base.id)
        if base and self._hidden:
            passed = mountinfo.way(table, base.target)
        self._base = base if passed and passed[-1] is base else None
        self.asks = asks(passed)

    def opened(self) -> int:
        """An O_PATH descriptor of that directory. Raises OSError; ELOOP where there is a link."""
        if not self._hidden:
            return kernel.openat2(kernel.AT_FDCWD, self._above, _DIRECTORY, resolve=_AS_IT_IS)
        if self._base is None:
            raise OSError(errno.ESTALE, "another mount hides it", self._above)
        return _beneath(self._base.target, os.path.relpath(self._above, self._base.target))


def _base(entry: MountEntry, table: tuple[MountEntry, ...]) -> MountEntry | None:
    """The mount whose directory `entry` covers, with all that is mounted at the same place."""
    by_id = {other.id: other for other in table}
    base = by_id.pop(entry.parent, None)
    while base and base.target == entry.target:
        base = by_id.pop(base.parent, None)
    return base


def _beneath(top: str, path: str) -> int:
    """A descriptor of the directory `path` on the mount at `top`, whatever is mounted over it."""
    with ExitStack() as stack:

        def kept(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        flags = os.O_RDONLY | os.O_DIRECTORY
        root = kept(kernel.openat2(kernel.AT_FDCWD, top, flags, resolve=_AS_IT_IS))
        # Nothing is mounted on a copy: a walk ends in the directory itself, and its handle leads to
        # the same directory on the mount that was copied.
        clone = kernel.OPEN_TREE_CLONE | kernel.AT_EMPTY_PATH
        copy = kept(kernel.open_tree("", clone, dir_fd=root))
        resolve = _AS_IT_IS | RESOLVE_BENEATH
        there = kept(kernel.openat2(copy, path, _DIRECTORY, resolve=resolve))
        return handles.opened(root, handles.of(there), _DIRECTORY)
