"""What the daemon says without being asked: new problems to the journal, and how it is to the
service manager.

Who listens on the bus is told there (`immud.bus.tree`); this is for who reads the journal, and
`systemctl status immud`.
"""

import asyncio

from immud import log
from immud.early import notify
from immud.model import ManagerState, Problem, Severity, TombState
from immud.service import Service

# Changes within this time are told as one, and after what they have set going, seconds.
TOGETHER = 0.01


class Telling:
    """Looks at `service` when something `changed`, and says what is new."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._log = log.get()
        self._told: tuple[Problem, ...] = ()
        self._line = ""
        self._due = False

    def changed(self) -> None:
        """Something may have changed. Cheap: this is called at every step of a tomb."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(TOGETHER, self._tell)

    def _tell(self) -> None:
        self._due = False
        problems = self._service.problems()
        found = {finding.path for finding in self._service.findings().values()}
        for problem in problems:
            # What is a finding the tripwire has said.
            if problem not in self._told and problem.data.get("path") not in found:
                self._say(problem)
        self._told = problems
        if (line := status(self._service)) != self._line:
            self._line = line
            notify.status(line)

    def _say(self, problem: Problem) -> None:
        if problem.severity == Severity.NOTICE:
            return
        say = self._log.error if problem.severity == Severity.ERROR else self._log.warning
        say(
            problem.text,
            message_id=log.MessageId.PROBLEM,
            code=problem.code,
            **{f"problem_{name}": value for name, value in problem.data.items()},
        )


def status(service: Service) -> str:
    """The STATUS line of `systemctl status immud`."""
    state = service.state()
    parts = [str(state).capitalize()]
    if state == ManagerState.DEGRADED:
        parts += [next(p.text for p in service.problems() if p.severity == Severity.ERROR)]
    elif state == ManagerState.OFF:
        later = [p.text for p in service.problems() if p.code == "enabled-later"]
        parts += later or ["immud=off on the kernel command line, nothing is protected"]
    else:
        protected = [m.where for m in service.mounts() if m.read_only]
        parts += [f"{' and '.join(protected)} read-only"] if protected else []
    for name, tomb in service.tombs().items():
        view = tomb.view
        where = f" at {view.mount_point}" if view.state == TombState.OPEN else ""
        parts.append(f"tomb {name} {view.state}{where}")
    if count := len(service.leases()):
        parts.append("a lease on / and /usr" if count == 1 else f"{count} leases on / and /usr")
    return "; ".join(parts)
