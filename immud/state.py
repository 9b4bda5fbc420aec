"""What is true now: the mount table and the links, held against the plan of this boot. Pure.

Nothing here is remembered from an earlier look. Phase 1's own problems are kept
only while what they were about is still so.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from immud.early import mountinfo, steps
from immud.early.facts import LASTING, Facts
from immud.early.observe import Observed
from immud.early.plan import BootPlan
from immud.model import LinkFact, ManagerState, MountFact, Problem, Severity

_SOURCED = ("/usr", "/etc", "/var")

RECONCILE = "sudo immud verify --fix"


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout as it is: every mount and link immud answers for, and what is wrong."""

    mounts: tuple[MountFact, ...] = ()
    links: tuple[LinkFact, ...] = ()
    problems: tuple[Problem, ...] = ()


def attest(facts: Facts, plan: BootPlan | None, observed: Observed) -> Layout:
    """Hold what was observed against the plan of this boot."""
    lasting = [problem_of(p) for p in facts.problems if p[1] in LASTING]
    if plan is None:
        return Layout(problems=tuple(lasting))
    found = steps.resolve(plan, observed)
    missing = {step.target for step in found.steps if step.op in ("link", "relink", "swap")}
    links = tuple(
        LinkFact(path, target, "missing" if path in missing else state, kind)
        for path, target, state, kind in found.links
    )
    mounts = tuple(
        _mount(where, how, source, observed)
        for where, how, source in steps.expected(plan, found.links)
    )
    stopped = [
        mount
        for mount in mounts
        if mount.state == "read-only" and _device(mount.where, observed) in observed.stopped
    ]
    problems = [
        *lasting,
        *(problem_of(p) for p in found.problems),
        *_stopped(stopped, observed),
        *(_explain(m, facts, plan) for m in mounts if m.state != "mounted" and m not in stopped),
        *(_dangling(link) for link in links if link.state == "missing"),
    ]
    return Layout(mounts, links, tuple(problems))


def overall(problems: Iterable[Problem], *, off: bool, stopping: bool = False) -> ManagerState:
    """One word for the whole."""
    if stopping:
        return ManagerState.STOPPING
    if off:
        return ManagerState.OFF
    if any(problem.severity == Severity.ERROR for problem in problems):
        return ManagerState.DEGRADED
    return ManagerState.RUNNING


def problem_of(record: steps.Problem) -> Problem:
    """A problem as phase 1 records it, as a value."""
    severity, code, text, data = record
    return Problem(Severity(severity), code, text, dict(data))


def _mount(where: str, how: str, source: str, observed: Observed) -> MountFact:
    entry = mountinfo.top(observed.mounts, where)
    if entry is None:
        return MountFact(where, source, "", "", read_only=False, state="missing")
    protected, stopped = how == "ro", entry.dev in observed.stopped
    if protected and not entry.read_only:
        state = "writable"
    elif not protected and (entry.read_only or stopped):
        state = "read-only"
    elif source not in (where, "/") and where in _SOURCED and where not in observed.placed:
        state = "elsewhere"
    else:
        state = "mounted"
    return MountFact(
        where,
        entry.source,
        entry.fstype,
        entry.options,
        read_only=entry.read_only or stopped,
        state=state,
    )


def _device(where: str, observed: Observed) -> str:
    entry = mountinfo.top(observed.mounts, where)
    return entry.dev if entry else ""


def _stopped(mounts: list[MountFact], observed: Observed) -> Iterable[Problem]:
    """One problem for all that is on a file system which takes no writes."""
    devices = [_device(mount.where, observed) for mount in mounts]
    for device in dict.fromkeys(devices):
        paths = [m.where for m, number in zip(mounts, devices, strict=True) if number == device]
        what = next(mount.what for mount in mounts if mount.where == paths[0])
        text = (
            f"the file system of {' and '.join(paths)} takes no writes any more ({what}); "
            "for the reason: journalctl -k; save what matters, and have it checked at a boot"
        )
        yield Problem(Severity.ERROR, "file-system-stopped", text, {"path": paths[0]})


def _explain(mount: MountFact, facts: Facts, plan: BootPlan) -> Problem:
    """What phase 1 said about this path, or else a sentence of our own."""
    for record in facts.problems:
        about = ("path", mount.where) in record[3] and record[1] not in LASTING
        if about and record[0] == Severity.ERROR:
            return problem_of(record)
    text = {
        "missing": f"{mount.where} is not mounted any more",
        "writable": f"{mount.where} is writable but should be read-only",
        "read-only": f"{mount.where} is read-only but should be writable",
        "elsewhere": f"{mount.where} does not show the source that is configured",
    }[mount.state]
    data = {"path": mount.where, "state": mount.state}
    sources = {"/usr": plan.usr, "/etc": plan.etc, "/var": plan.var}
    # Programs use what has another source: it is mounted at boot alone.
    at_boot = sources.get(mount.where, mount.where) != mount.where
    how = "a reboot restores it" if at_boot else f"to restore it: {RECONCILE}"
    return Problem(Severity.ERROR, f"mount-{mount.state}", f"{text}; {how}", data)


def _dangling(link: LinkFact) -> Problem:
    text = f"{link.path} is no longer the link to {link.target}; to restore it: {RECONCILE}"
    return Problem(Severity.ERROR, "link-missing", text, {"path": link.path})
