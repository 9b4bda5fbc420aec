"""The links that enable the service, in every /etc this machine may boot with.

`systemctl enable` knows the /etc that is shown. Where `etc.source` names another,
PID 1 begins with the root file system's own and goes on with that one: enabled
in the first alone, nothing could call the service on the bus; disabled in the
second alone, the next boot would start it all the same.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from immud.early import kernel

_UNIT = "/usr/lib/systemd/system/immud.service"
_LINKS = ("systemd/system/local-fs.target.wants/immud.service",
          "systemd/system/dbus-org.immud1.service")  # fmt: skip


def follow(etc_source: str, *, enabled: bool, root: str = "/") -> None:
    """Do in the other /etc directories what systemctl did in the one that is shown.

    `etc_source` is `etc.source` of the configuration. Raises OSError.
    """
    if etc_source == "/etc":
        return
    from immud.enable.seed import opened  # noqa: PLC0415 - most systems have one /etc

    with opened(etc_source, root, readonly=False) as etc:
        _set(etc, enabled)
    if os.path.realpath(root) == "/":
        with _own_etc() as etc:
            _set(etc, enabled)


@contextmanager
def _own_etc() -> Iterator[int]:
    """The root file system's own /etc, below whatever is mounted there, and writable."""
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


def _set(etc: int, enabled: bool) -> None:
    for link in _LINKS:
        if enabled:
            with suppress(FileExistsError):
                os.mkdir(os.path.dirname(link), 0o755, dir_fd=etc)
            with suppress(FileExistsError):
                os.symlink(_UNIT, link, dir_fd=etc)
        else:
            with suppress(FileNotFoundError):
                os.unlink(link, dir_fd=etc)
    os.sync()
