"""The facts of this boot, in /run/immud: written once by phase 1, read by everybody else.

That the file exists means that phase 1 has run to its end in this boot; the
next start of the service then only verifies. A crash before that line leaves
no facts, and the next start goes on from what it observes.
"""

import os

from immud.early.plan import BootPlan, PlanError, decode, encode, records, unescape
from immud.early.steps import Link, Problem

DIRECTORY = "/run/immud"
PATH = DIRECTORY + "/facts"
PLAN = DIRECTORY + "/plan"
# Made by `immud enable` in a system that runs, which is not to be laid out any more: as soon as
# the service is enabled, anybody's call on the bus may start it.
LATER = DIRECTORY + "/later"
# Its presence says that /etc and /var are the configured ones: see immud-sources.target.
SOURCES_OK = DIRECTORY + "/sources.ok"
# Made before another /usr or /etc is placed: a run that finds it follows one that was cut off,
# maybe before it told PID 1.
MOVED = DIRECTORY + "/moved"

# Problems that are about a moment of the boot; all others are about something that can be
# looked at, and are over when that is as it should be.
LASTING = (
    "plan-missing",
    "plan-outdated",
    "plan-unreadable",
    "enabled-later",
    "source-missing",
    "usr-refused",
    "pid1-reload",
    "pid1-reexec",
    "phase1-failed",
    "facts-unwritable",
    "attempts-unwritable",
    "boots-failed",
)


class Facts:
    """What phase 1 found and did.

    `layout` is `done`, `partial` (some step failed), `skipped` (the boots before failed)
    or `off` (as it was asked for, or enabled since the boot); `plan` says where
    the plan came from: `compiled`, `fresh` (the configuration had changed),
    `last-good` (and is wrong, or not prepared for), `usr-only` (there was none) or `none`. `mounts`
    are (path, mount id, `ro`|`rw`, source); `times` CLOCK_MONOTONIC microseconds.
    `trees` say what each of the mounts showed at the end of phase 1, whatever is
    mounted later: (path, `major:minor`, directory of it, `ro`|`rw` of the file system).
    `due` is the plan that the next boot is to find, where it would find another; it is not written.
    """

    __slots__ = ("due", "layout", "links", "mounts", "plan", "problems", "times", "trees")

    def __init__(
        self,
        *,
        layout: str = "off",
        plan: str = "none",
        mounts: tuple[tuple[str, int, str, str], ...] = (),
        links: tuple[Link, ...] = (),
        problems: tuple[Problem, ...] = (),
        times: tuple[tuple[str, int], ...] = (),
        trees: tuple[tuple[str, str, str, str], ...] = (),
        due: BootPlan | None = None,
    ) -> None:
        self.layout = layout
        self.plan = plan
        self.mounts = mounts
        self.links = links
        self.problems = problems
        self.times = times
        self.trees = trees
        self.due = due


def write(facts: Facts, path: str = PATH) -> None:
    """Publish the facts, all at once."""
    lines: list[tuple[str, ...]] = [("layout", facts.layout), ("plan", facts.plan)]
    lines += [("mount", where, str(number), how, what) for where, number, how, what in facts.mounts]
    lines += [("link", *link) for link in facts.links]
    lines += [
        ("problem", severity, code, text, *(part for pair in data for part in pair))
        for severity, code, text, data in facts.problems
    ]
    lines += [("time", name, str(usec)) for name, usec in facts.times]
    lines += [("tree", *tree) for tree in facts.trees]
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(records(lines))
    os.rename(path + ".new", path)


def read(path: str = PATH) -> Facts | None:
    """The facts of this boot, or None where phase 1 has not come to its end."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().split("\n")[:-1]
    except FileNotFoundError:
        return None
    facts = Facts()
    for line in lines:
        name, *fields = map(unescape, line.split("\t"))
        if name == "layout":
            facts.layout = fields[0]
        elif name == "plan":
            facts.plan = fields[0]
        elif name == "mount":
            facts.mounts += ((fields[0], int(fields[1]), fields[2], fields[3]),)
        elif name == "link":
            facts.links += ((fields[0], fields[1], fields[2], fields[3]),)
        elif name == "problem":
            severity, code, text, *rest = fields
            data = tuple(zip(rest[::2], rest[1::2], strict=True))
            facts.problems += ((severity, code, text, data),)
        elif name == "time":
            facts.times += ((fields[0], int(fields[1])),)
        elif name == "tree":
            facts.trees += ((fields[0], fields[1], fields[2], fields[3]),)
    return facts


def note(path: str) -> None:
    """Make the empty file `path`, whose presence says something."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def keep_plan(plan: BootPlan, path: str = PLAN) -> None:
    """Keep the plan this boot was laid out by, whatever the configuration becomes later."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(path + ".new", "wb") as file:
        file.write(encode(plan))
    os.rename(path + ".new", path)


def kept_plan(path: str = PLAN) -> BootPlan | None:
    """The plan of this boot, or None where there is no layout.

    Raises PlanError where another version of immud has laid out this boot, in its own words.
    """
    try:
        with open(path, "rb") as file:
            return decode(file.read())
    except FileNotFoundError:
        return None


def of_this_boot() -> tuple[Facts, BootPlan | None]:
    """The facts and the plan, for a daemon that may be of another version than phase 1 was."""
    made = read() or Facts()
    try:
        return made, kept_plan()
    except PlanError as error:
        text = (
            f"{PLAN}: {error}; the layout stays as it is, but nobody watches it before the "
            "next boot"
        )
        made.problems += (("error", "plan-unreadable", text, ()),)
        return made, None
