"""`immud plan`: the steps of the next boot, decided by the very code that decides them then."""

import os
import sys
from argparse import Namespace

from immud.cli.render import Style, problem_json, problem_lines
from immud.config.compile import compile_now
from immud.early import facts, main
from immud.early.observe import Observed, observe
from immud.early.plan import PATH, BootPlan
from immud.early.steps import Problem as EarlyProblem
from immud.early.steps import Resolution, resolve
from immud.errors import NotAuthorized
from immud.model import Problem, Severity


def plan(arguments: Namespace) -> int:
    """Print the steps the next boot will perform; 1 where it will have to report an error."""
    if os.path.realpath(arguments.root) == "/":
        wanted, _, said, _ = main.load()
        if not os.path.exists(PATH):
            said = [_NOT_ENABLED, *(problem for problem in said if problem[0] == "error")]
        observed = before_boot(observe(wanted), wanted, facts.read())
    else:
        # Nothing is mounted yet in a system that does not run.
        wanted, said = compile_now(arguments.root), []
        observed = observe(wanted, arguments.root.rstrip("/"))
        observed.mounts = ()
    hidden = sorted(path for path, (kind, _) in observed.paths.items() if kind == "unknown")
    if hidden and os.geteuid() != 0:
        raise NotAuthorized(f"only root can look into {hidden[0]}; try: sudo immud plan")
    resolution = resolve(wanted, observed)
    problems = tuple(
        Problem(Severity(severity), code, text, dict(data))
        for severity, code, text, data in (*said, *resolution.problems)
    )
    if arguments.json:
        import json  # noqa: PLC0415 - only here

        print(json.dumps(_as_json(resolution, problems), indent=2))
    else:
        for line in problem_lines(problems, Style.of(sys.stderr)):
            print(line, file=sys.stderr)
        sys.stderr.flush()
        for step in resolution.steps:
            print(step.describe())
    return int(any(problem.severity is Severity.ERROR for problem in problems))


_NOT_ENABLED: EarlyProblem = (
    "notice",
    "not-enabled",
    "not enabled, so the next boot is an ordinary one; "
    "these are the steps of the boot after immud enable",
    (),
)


def before_boot(observed: Observed, wanted: BootPlan, made: facts.Facts | None) -> Observed:
    """What was observed, as the next boot will find it. Pure.

    Links and directories stay, those in /run excepted; no mount of this boot's does.
    """
    paths = {
        path: ("absent", "") if path.startswith("/run/") else found
        for path, found in observed.paths.items()
    }
    # Not among the mounts that are published: the tmpfs behind /tmp, and immud's own directory.
    places = {row.directory for row in wanted.rows if row.directory.startswith("/sysroot/")}
    places |= {os.path.dirname(PATH)} if wanted.etc != "/etc" else set()
    # adopt and release mount these anew.
    links = made.links if made else ()
    places |= {path for path, _, state, _ in links if state in ("bound", "unadopted")}
    ours = {number for _, number, _, _ in made.mounts} if made else set()
    return Observed(
        mounts=tuple(
            entry
            for entry in observed.mounts
            if not made or (entry.id not in ours and entry.target not in places)
        ),
        paths=paths,
        fstab=observed.fstab,
        units=observed.units,
        tmp_mount=observed.tmp_mount,
    )


def _as_json(resolution: Resolution, problems: tuple[Problem, ...]) -> dict[str, object]:
    return {
        "steps": [
            {
                "operation": step.op,
                "target": step.target,
                "source": step.source,
                "read_only": step.readonly,
                "mode": f"{step.mode:04o}" if step.mode else None,
                "description": step.describe(),
            }
            for step in resolution.steps
        ],
        "links": [
            {"path": path, "target": target, "state": state, "kind": kind}
            for path, target, state, kind in resolution.links
        ],
        "problems": [problem_json(problem) for problem in problems],
    }
