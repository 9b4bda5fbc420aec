"""A mount namespace of this process's own, for a while."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from immud.early import kernel


@contextmanager
def private_mounts() -> Iterator[None]:
    """What is mounted meanwhile is seen by nobody else, and gone with the namespace.

    What is unmounted outside goes here too. Raises OSError; for a process of one thread.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    before = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    root, here = os.open("/", flags), os.open(".", flags)
    try:
        kernel.unshare(kernel.CLONE_NEWNS)
        try:
            kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_SLAVE)
            yield
        finally:
            kernel.setns(before)
            # setns(2) goes to the namespace's own root, which is outside of a chroot.
            os.fchdir(root)
            os.chroot(".")
            os.fchdir(here)
    finally:
        for fd in (before, root, here):
            os.close(fd)
