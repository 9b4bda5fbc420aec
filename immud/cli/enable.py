"""`immud enable` and `immud disable`."""

import os
import sys
from argparse import Namespace
from contextlib import ExitStack, suppress

from immud.atomic import sync_file_system
from immud.cli.render import Style, problem_lines
from immud.config.compile import compile_plan, remove_plan, write_plan
from immud.early import attempts, facts
from immud.early.plan import PATH, PlanError, decode
from immud.enable import apt, etcs
from immud.enable.check import examine_system
from immud.enable.links import follow
from immud.errors import ImmudError, NotAuthorized
from immud.model import Problem, Severity

UNIT = "immud.service"
# It stops with the system, and removes facts.LATER.
LATER = "immud-later.service"


def systemctl(verb: str, root: str, unit: str = UNIT) -> None:
    """`systemctl enable` or `disable` of the unit. Raises CommandFailed with what it said.

    In another root it works on the files alone, no systemd need run.
    """
    import asyncio  # noqa: PLC0415 - not for a refusal

    from immud.run import run  # noqa: PLC0415

    elsewhere = [] if os.path.realpath(root) == "/" else [f"--root={os.path.abspath(root)}"]
    asyncio.run(run("systemctl", *elsewhere, "--quiet", "--no-ask-password", verb, unit))


def require_root(command: str) -> None:
    """Raises NotAuthorized for anybody but root."""
    if os.geteuid() != 0:
        raise NotAuthorized(f"{command} changes the system and needs root; try: sudo {command}")


def enable(arguments: Namespace) -> int:
    """Check, compile and enable; refuse before touching anything if a check fails."""
    require_root("immud enable")
    root: str = arguments.root
    config, problems = examine_system(root)
    if arguments.seed and _only_unmarked(problems):
        _seed(problems, root)
        config, problems = examine_system(root)
    style = Style.of(sys.stderr)
    for line in problem_lines(problems, style):
        print(line, file=sys.stderr)
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    if errors:
        these = "this problem" if errors == 1 else f"these {errors} problems"
        raise ImmudError(f"nothing was changed; solve {these} first, then run immud enable again")
    was_there = os.path.lexists(os.path.join(root, PATH[1:]))
    _begin_with_a_boot(root)
    # The plan first: an enabled service without one would have to compile it at boot.
    changed = write_plan(compile_plan(config), root)
    try:
        attempts.write(0, os.path.join(root, attempts.PATH[1:]))
        systemctl("enable", root)
        with etcs.others(config.etc, root) as others:
            follow(others, enabled=True)
            if notice := apt.enable(arguments.apt, root, others):
                print(notice, file=sys.stderr)
        lasting(root)
    except (ImmudError, OSError):
        if not was_there:
            _take_back(config.etc, root)
        raise
    if was_there and not changed:
        print("Enabled already, and the boot plan is up to date.")
    elif was_there:
        print("The boot plan was compiled anew; the next boot follows it.")
        if os.path.realpath(root) == "/" and os.path.exists(facts.PATH):
            from immud.cli.reload import reload  # noqa: PLC0415 - asyncio, D-Bus and all

            if reload():
                print("The tombs follow the configuration now.")
    else:
        print("Enabled. Nothing changes before the next boot, which will:")
        print(_promise(config.root_readonly))
        print("See every step with: immud plan. To undo this: immud disable.")
    return 0


def _take_back(etc_source: str, root: str) -> None:
    """Undo what a first enabling came to before it failed, which is what is told, each for itself.

    The unit first: an enabled one would lay the next boot out, with a plan or without.
    """
    for undo in (
        lambda: systemctl("disable", root),
        lambda: _take_back_each(etc_source, root),
        lambda: remove_plan(root),
    ):
        with suppress(ImmudError, OSError):
            undo()


def _begin_with_a_boot(root: str) -> None:
    """Have a system that runs, and was booted without immud, stay as it is until it reboots."""
    runs = os.path.realpath(root) == "/" and os.path.isdir("/run/systemd/system")
    if runs and not os.path.exists(facts.PATH):
        facts.note(facts.LATER)
        systemctl("start", root, LATER)


def _only_unmarked(problems: tuple[Problem, ...]) -> bool:
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    return bool(errors) and all(problem.code == "unmarked-source" for problem in errors)


def _seed(problems: tuple[Problem, ...], root: str) -> None:
    """Copy /etc or /var to each source that is not marked."""
    from immud.enable.seed import seed  # noqa: PLC0415 - most systems have no such source

    for problem in problems:
        if problem.code == "unmarked-source":
            where, source = "/" + problem.data["name"], problem.data["source"]
            print(f"Copying {where} to {source}. What is written meanwhile may be missed.")
            sys.stdout.flush()
            seed(where, source, root)


def _promise(root_readonly: bool) -> str:
    frozen = "/usr and /" if root_readonly else "/usr"
    return (
        f"  - make {frozen} read-only, and keep /etc and /var writable\n"
        "  - put the links of the layout where nothing or an empty directory is;\n"
        "    directories with something in them stay (see immud adopt)\n"
        "  - open the configured tombs when their drives are there\n"
        "One boot without all that: add immud=off to the kernel command line."
    )


def disable(arguments: Namespace) -> int:
    """Undo enable, exactly."""
    require_root("immud disable")
    root: str = arguments.root
    elsewhere = _elsewhere(root)
    try:
        # The unit first: interrupted here, a plan that nothing reads is left.
        systemctl("disable", root)
        etc_source = dict(elsewhere).get("/etc", "/etc")
        _take_back_each(etc_source, root)
        if os.path.realpath(root) == "/":
            with suppress(FileNotFoundError):
                os.unlink(facts.LATER)
        removed = remove_plan(root)
    finally:
        lasting(root)
    if removed:
        print("Disabled. The next boot is an ordinary one; until then nothing changes.")
        print("Links stay, and are valid without immud; immud release puts directories back.")
        for where, source in elsewhere:
            print(f"It has the root file system's own {where} again, not the one of {source}.")
    else:
        print("Not enabled; nothing to undo.")
    return 0


def _take_back_each(etc_source: str, root: str) -> None:
    """Undo what is in each /etc. Raises OSError; a source that is gone is only said to be.

    A drive that does not come back must not keep anybody from going without immud.
    """
    with ExitStack() as stack:
        try:
            others = stack.enter_context(etcs.others(etc_source, root))
        except OSError as error:
            others = stack.enter_context(etcs.others("/etc", root))
            text = f"{etc_source} could not be reached ({error.strerror}), so what"
            print(f"{text} immud wrote to the /etc there stays in it.", file=sys.stderr)
        follow(others, enabled=False)
        if notice := apt.disable(root, others):
            print(notice, file=sys.stderr)


def lasting(root: str = "/") -> None:
    """Have on the disk what enabling or disabling did: said to be done, it outlives a power cut.

    Neither systemctl nor a rename waits for that. /usr/local, where apt's link is, is in /var.
    """
    for place in ("etc", "usr/local"):
        with suppress(FileNotFoundError):
            sync_file_system(os.path.join(root, place))


def _elsewhere(root: str) -> list[tuple[str, str]]:
    """Which of /usr, /etc and /var the plan takes from another place, and which that is."""
    try:
        with open(os.path.join(root, PATH[1:]), "rb") as file:
            plan = decode(file.read())
    except (OSError, PlanError):
        return []
    sources = (("/usr", plan.usr), ("/etc", plan.etc), ("/var", plan.var))
    return [(where, source) for where, source in sources if source != where]
