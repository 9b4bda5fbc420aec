"""The links that enable the service, in every /etc this machine may boot with.

`systemctl enable` knows the /etc that is shown. Where there are more (see immud.enable.etcs),
PID 1 begins with the root file system's own: enabled in another alone, the next boot would be one
without immud; disabled in another alone, the next boot would start it all the same.
"""

import os
from collections.abc import Iterable
from contextlib import suppress

_UNIT = "/usr/lib/systemd/system/immud.service"
_LINKS = ("systemd/system/local-fs.target.wants/immud.service",
          "systemd/system/dbus-org.immud1.service")  # fmt: skip


def follow(others: Iterable[int], *, enabled: bool) -> None:
    """Do in the other /etc directories what systemctl did in the one that is shown.

    `others` are descriptors of them. Raises OSError.
    """
    for etc in others:
        for link in _LINKS:
            if enabled:
                with suppress(FileExistsError):
                    os.mkdir(os.path.dirname(link), 0o755, dir_fd=etc)
                with suppress(FileExistsError):
                    os.symlink(_UNIT, link, dir_fd=etc)
            else:
                with suppress(FileNotFoundError):
                    os.unlink(link, dir_fd=etc)
