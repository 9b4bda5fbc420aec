"""The leases there are, as their records say: the daemon gives none, and need not run for one.

inotify(7) tells of those that come and go. PID 1 takes a lease off the record when it ends,
whatever happened; a record whose service is gone all the same is taken off here.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress

from immud import log
from immud.inotify import IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO, Inotify
from immud.lease import record
from immud.lease.record import Record

GRACE = 30.0
"""Seconds PID 1 has to do it, after the end of the process that waited for the lease's."""


class Leases:
    """`changed` is called on the running loop when one has come or gone."""

    def __init__(self, changed: Callable[[], None], directory: str = record.DIRECTORY) -> None:
        self.by_id: Mapping[str, Record] = {}
        self._changed = changed
        self._directory = directory
        self._inotify: Inotify | None = None
        self._watchers: dict[str, int] = {}

    def start(self) -> None:
        record.prepare(self._directory)
        self._inotify = Inotify()
        mask = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO
        self._inotify.add(self._directory, mask)
        asyncio.get_running_loop().add_reader(self._inotify.fd, self._readable)
        self._look()

    def close(self) -> None:
        if self._inotify:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
        for id in tuple(self._watchers):
            self._forget(id)

    def _readable(self) -> None:
        assert self._inotify
        # Names that begin with a dot are records on their way in or out.
        if any(not name.startswith(".") for _, _, name in self._inotify.take()):
            self._look()

    def _look(self) -> None:
        found = {}
        for id in record.names(self._directory):
            with suppress(ValueError):  # not made by us
                if lease := record.read(id, self._directory):
                    found[id] = lease
        before, self.by_id = self.by_id, found
        for id in self._watchers.keys() - found.keys():
            self._forget(id)
        for id in found.keys() - self._watchers.keys():
            self._follow(found[id])
        if before.keys() != found.keys():
            self._changed()

    def _follow(self, lease: Record) -> None:
        """Be told of the end of the process that ends with it."""
        loop = asyncio.get_running_loop()
        try:
            fd = os.pidfd_open(lease.watcher)
        except OSError:
            loop.call_later(GRACE, self._tidy, lease.id)
            return
        self._watchers[lease.id] = fd

        def ended() -> None:
            self._forget(lease.id)
            loop.call_later(GRACE, self._tidy, lease.id)

        loop.add_reader(fd, ended)

    def _forget(self, id: str) -> None:
        if (fd := self._watchers.pop(id, -1)) >= 0:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)

    def _tidy(self, id: str) -> None:
        if id in self.by_id and id not in self._watchers:
            log.get(lease=id).warning(
                f"Lease {id} ended without cleaning up; removing its record.",
                message_id=log.MessageId.LEASE_ENDED,
            )
            record.remove(id, self._directory)
