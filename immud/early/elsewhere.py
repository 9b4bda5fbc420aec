"""Taking /usr, /etc and /var from elsewhere: built and proved first, refused in time.

A source that is missing, unmarked or cannot run this machine is replaced by the
tree on the disk, with an error that says so; the target `immud-sources.target`
then fails, and with it what asked to be held back.
"""

import os
from collections.abc import Callable

from immud.early import facts, namespaces, pid1, sources, tmpfiles
from immud.early.execute import Trees
from immud.early.steps import Problem, Step

# Its presence says that a directory is meant to be this machine's /etc or /var,
# and not the empty mount point of a drive that is not there.
MARKER = ".immud"
# A copy that is being made has this as well, or instead, until it is whole.
UNFINISHED = MARKER + ".unfinished"

# Once another /usr is in place nothing of the old one can be imported any more: what
# the steps may need is loaded by now.
LOADED = (namespaces, tmpfiles)

_TREES = ("/usr", "/etc", "/var")

# Limits in seconds for what takes a fraction of one, on a fast machine; together they stay
# below TimeoutStartSec=. `boot.wait` is another matter, and may be 0.
_PROBE = 20
_PID1 = 30

Then = Callable[[], list[Problem]]


def settle(steps: tuple[Step, ...], trees: Trees) -> tuple[tuple[Step, ...], list[Problem], Then]:
    """Build what comes from elsewhere, or put the tree on the disk in its place.

    Returns the steps to perform, what was refused, and what is to be done with
    PID 1 once they are.
    """
    problems: list[Problem] = []
    settled: list[Step] = []
    moved: set[str] = set()
    here = [s for s in steps if s.op == "attach" and s.source != s.target and s.target in _TREES]
    # /usr last: where a device holds another tree as well, its file system has to be writable.
    built = {step: _build(step, trees) for step in sorted(here, key=lambda s: s.readonly)}
    for step in steps:
        why = built.get(step, "")
        if not why:
            settled.append(step)
            if step in built:
                moved.add(step.target)
            continue
        trees.drop(step)
        settled.append(Step("attach", step.target, step.target, readonly=step.readonly))
        code = "usr-refused" if step.target == "/usr" else "source-missing"
        text = f"{step.target} is the one on the disk, not {step.source}: {why}"
        problems.append(("error", code, text, (("path", step.target), ("source", step.source))))
    before = sources.systemd_of("/usr") if "/usr" in moved else None
    cut_off = os.path.exists(facts.MOVED)
    if moved & {"/usr", "/etc"}:
        try:
            facts.note(facts.MOVED)
        except OSError as error:
            problems.append(("error", "facts-unwritable", f"{facts.MOVED}: {error}", ()))

    def then() -> list[Problem]:
        if cut_off or (before and sources.systemd_of("/usr") != before):
            return pid1.call("reexec", _PID1)  # which reloads as well
        return pid1.call("reload", _PID1) if "/etc" in moved else []

    return tuple(settled), problems, then


def _build(step: Step, trees: Trees) -> str:
    """Why `step`'s source cannot be used, or the empty string with its tree built."""
    try:
        trees.build(step)
        fd = trees.fd(step)
        if fd is None:  # mount(2) alone: nothing detached to look into
            return "" if os.path.isdir(step.source) else "this kernel cannot mount it aside"
        if step.target == "/usr":
            # Once more from the start: Linux before 6.15 clones nothing that is detached.
            probe = sources.tree(step.source, readonly=True)
            try:
                return sources.probe_usr(probe, _PROBE)
            finally:
                os.close(probe)
        return _unmarked(fd)
    except FileNotFoundError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)


def _unmarked(fd: int) -> str:
    """Why the tree `fd` is not one that is meant and whole, or the empty string. Raises OSError."""
    if _is_there(UNFINISHED, fd):
        return "the copy in it was cut off; 'immud enable --seed' resumes it"
    try:
        os.close(os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd))
    except FileNotFoundError:
        return f"it holds no {MARKER} file; 'immud enable --seed' prepares it"
    return ""


def _is_there(name: str, fd: int) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
