"""The policy `relock`: put an attribute back, once for each finding, and not for ever.

Whoever undoes it again and again has a reason, or is a program that would go on for as long as
we do: after a few times it is only said.
"""

import asyncio
import errno
import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from immud import log
from immud.child import in_child
from immud.early import kernel
from immud.errors import ImmudError
from immud.model import Breach, Finding, JobView, Tripwire

LIMIT, WITHIN = 3, 600.0
"""So many times for a path in so many seconds."""

_ATTRIBUTES = {
    Breach.WRITABLE: kernel.MOUNT_ATTR_RDONLY,
    Breach.NEW_MOUNT: kernel.MOUNT_ATTR_RDONLY,
    Breach.WAY_IN: kernel.MOUNT_ATTR_RDONLY,
    Breach.TOMB: kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV,
}
# What phase 1's own steps mend.
_STEPS = (Breach.UNMOUNTED, Breach.LINK)


class Relock:
    """`reconcile` does what Reconcile does, and looks; the others have the outcome looked at.

    `stands` says whether a finding is still one.
    """

    def __init__(
        self,
        policy: Callable[[], Tripwire],
        *,
        reconcile: Callable[[], Awaitable[JobView]],
        look: Callable[[], None],
        stands: Callable[[Finding], bool],
        look_elsewhere: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy, self._reconcile, self._clock = policy, reconcile, clock
        self._look, self._look_elsewhere = look, look_elsewhere
        self._stands = stands
        self._log = log.get()
        self._done: dict[str, list[float]] = defaultdict(list)
        self._tasks: set[asyncio.Task[None]] = set()

    def consider(self, finding: Finding) -> None:
        """Put back what a new finding is about, where that is wanted."""
        if self._policy().policy(finding.path) != "relock":
            return
        if not self.allowed(finding.path):
            self._log.warning(
                f"{finding.path} is not restored again: it was changed more than {LIMIT} times "
                f"in {WITHIN / 60:.0f} minutes; find out by whom.",
                **_fields(finding),
            )
            return
        if finding.kind in _STEPS and not finding.namespace:
            self._start(self._perform_steps(finding))
        elif finding.kind in _ATTRIBUTES:
            self._start(self._set_attributes(finding))
        else:
            self._say_it_stays(finding)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="relock")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def allowed(self, path: str) -> bool:
        """Whether it may be done once more; counts it if so."""
        now = self._clock()
        done = [moment for moment in self._done[path] if now - moment < WITHIN]
        self._done[path] = done
        if len(done) >= LIMIT:
            return False
        done.append(now)
        return True

    async def _perform_steps(self, finding: Finding) -> None:
        ended = await self._reconcile()
        # Nothing replaces a link of somebody's, nor mounts at runtime what has another source.
        if self._stands(finding):
            self._say_it_stays(finding, reason=ended.error)
        else:
            self._say(finding)

    async def _set_attributes(self, finding: Finding) -> None:
        attributes = _ATTRIBUTES[finding.kind]
        try:
            if finding.namespace:
                await in_child(
                    set_elsewhere, finding.pid, finding.namespace, finding.path, attributes
                )
            else:
                kernel.mount_setattr(finding.path, set_=attributes)
        except (OSError, ImmudError, RuntimeError) as error:
            self._log.error(
                f"{finding.path} could not be restored: {error}; see: immud verify",
                **_fields(finding),
            )
        else:
            self._say(finding)
        if finding.namespace:
            self._look_elsewhere()
        else:
            self._look()

    def _say(self, finding: Finding) -> None:
        self._log.notice(
            f"{finding.path} was restored (policy: relock).",
            message_id=log.MessageId.RELOCKED,
            **_fields(finding),
        )

    def _say_it_stays(self, finding: Finding, reason: str = "") -> None:
        self._log.warning(
            f"{finding.path} cannot be restored automatically; see: immud verify",
            **_fields(finding),
            **({"reason": reason} if reason else {}),
        )


def set_elsewhere(pid: int, namespace: int, path: str, attributes: int) -> None:
    """In a child: set attributes of a mount in the namespace of a process.

    Raises OSError, ESRCH where the process is in that namespace no more.
    """
    fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    if os.fstat(fd).st_ino != namespace:
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
    kernel.setns(fd)
    kernel.mount_setattr(path, set_=attributes)


def _fields(finding: Finding) -> dict[str, object]:
    return {"finding": finding.id, "path": finding.path, "kind": str(finding.kind)}
