"""Every /etc that this machine may boot with.

The one that is shown; the root file system's own, with which PID 1 begins, and which is the same
one unless `etc.source` names another; and that one, which the next boot may show.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from immud.early import mountinfo


@contextmanager
def others(source: str, root: str = "/") -> Iterator[list[int]]:
    """Descriptors of those that are not shown, writable, and on the disk afterwards.

    `source` is `etc.source`, of the configuration or of a plan. Raises OSError where that is
    not there.
    """
    with ExitStack() as stack:
        found = []
        if source != "/etc":
            from immud.enable.seed import opened  # noqa: PLC0415 - most systems have one /etc

            found.append(stack.enter_context(opened(source, root, readonly=False)))
        if not own_is_shown(root):
            found.append(stack.enter_context(own()))
        yield found
        from immud.atomic import sync_file_system  # noqa: PLC0415 - brings ctypes

        for etc in found:
            sync_file_system(f"/proc/self/fd/{etc}")


def own_is_shown(root: str = "/") -> bool:
    """Whether the /etc that everybody sees is the root file system's own, whatever its source."""
    if os.path.realpath(root) != "/":
        return True
    mounts = mountinfo.read()
    mount, base = mountinfo.top(mounts, "/etc"), mountinfo.top(mounts, "/")
    if mount is None:
        return True
    return bool(base and mount.dev == base.dev and mount.root == base.root.rstrip("/") + "/etc")


@contextmanager
def own() -> Iterator[int]:
    """The root file system's own /etc, below whatever is mounted there, and writable."""
    from immud.early import kernel  # noqa: PLC0415 - brings ctypes, and is not for most systems

    tree = kernel.open_tree("/")
    try:
        kernel.mount_setattr("", clear=kernel.MOUNT_ATTR_RDONLY, dir_fd=tree)
        etc = os.open("etc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
        try:
            yield etc
        finally:
            os.close(etc)
    finally:
        os.close(tree)
