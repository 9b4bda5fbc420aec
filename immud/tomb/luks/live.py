"""Going on as soon as a mapping is live, while udev is still busy with it. For children only.

libcryptsetup returns when udev has run its rules for the new device, which takes
longer than all the rest: two programs of its own are started in them. The kernel says
itself when the table is live, and /dev/dm-N is there before that (devtmpfs).
"""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Thread

from immud.tomb.luks import dm

_KOBJECT_UEVENT = 15  # NETLINK_KOBJECT_UEVENT, netlink(7)
_KERNEL = 1  # the kernel's own events; those of group 2 come from udev


class Live:
    """Calls `then` once: when the mapping `name` has a live table, or at `now`."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self._name, self._then = name, then
        self._once = Lock()
        self._events = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _KOBJECT_UEVENT
        )
        self._events.bind((0, _KERNEL))
        # It ends with the process, whatever it waits for.
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while True:
            try:
                event = self._events.recv(16384)
            except OSError:
                # More events than fit (ENOBUFS): what was missed may be the one.
                event = b"dm-"
            if b"dm-" in event and self._is_live():
                if self._once.acquire(blocking=False):
                    self._then()
                return

    def _is_live(self) -> bool:
        with suppress(OSError):
            return dm.crypt(self._name) is not None
        return False

    def now(self) -> None:
        """The mapping is there: have it called, or wait until it has been."""
        if self._once.acquire(blocking=False):
            self._then()
        else:
            self._thread.join()


def link(name: str, node: str) -> None:
    """Make the link /dev/mapper/NAME that udev is going to make, and leaves as it is."""
    with suppress(FileExistsError):
        os.symlink(f"../{os.path.basename(node)}", f"/dev/mapper/{name}")


def unlink(name: str) -> None:
    """Remove that link where the device went away before udev ever knew of it."""
    where = f"/dev/mapper/{name}"
    with suppress(OSError):
        if not os.path.exists(where):
            os.unlink(where)
