"""Deciding: from a plan and what was observed to the steps that are missing. Pure.

Steps are the only vocabulary of effects: `immud plan` prints them, phase 1
performs them, the facts record them. On a machine where everything is in place
there are none, which is what makes a restart, and a run after a crash at any
line, harmless.
"""

from immud.early import mountinfo
from immud.early.observe import Observed
from immud.early.plan import BootPlan, Row

Link = tuple[str, str, str, str]  # path, target, state, kind: as ListLinks() has it
_ABSENT = ("absent", "")
Problem = tuple[str, str, str, tuple[tuple[str, str], ...]]  # severity, code, text, data


class Step:
    """One effect. `op` is one of

    - `attach`: a clone of the tree at `source`, or the file system it names, at `target`;
    - `directory`: `target` made with `mode` where it is missing;
    - `unlink`: the link at `target` containing `source` removed, left by an adoption cut off;
    - `link`: a link at `target` containing `source`, where nothing is;
    - `relink`: the same in place of a directory that is empty;
    - `swap`: `target` and the directory its link will lead to exchanged, at boot only;
    - `tmpfs`: an empty, volatile file system at `target`;
    - `readonly`: the attribute of the mount at `target` itself.
    """

    __slots__ = ("mode", "op", "readonly", "source", "target")

    def __init__(
        self, op: str, target: str, source: str = "", *, readonly: bool = False, mode: int = 0
    ) -> None:
        self.op = op
        self.target = target
        self.source = source
        self.readonly = readonly
        self.mode = mode

    def _key(self) -> tuple[object, ...]:
        return (self.op, self.target, self.source, self.readonly, self.mode)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Step{self._key()!r}"

    def describe(self) -> str:
        """The step as a line a person reads."""
        return _DESCRIPTIONS[self.op].format(
            step=self, how="read-only" if self.readonly else "writable"
        )


_DESCRIPTIONS = {
    "attach": "mount      {step.target:<16} {how}, from {step.source}",
    "directory": "directory  {step.target:<16} mode {step.mode:04o}, where it is missing",
    "unlink": "unlink     {step.target:<16} -> {step.source}, of an adoption that was cut off",
    "link": "link       {step.target:<16} -> {step.source}",
    "relink": "link       {step.target:<16} -> {step.source}, in place of an empty directory",
    "swap": "exchange   {step.target:<16} with a link to {step.source}",
    "tmpfs": "tmpfs      {step.target:<16} mode {step.mode:04o}, empty at every boot",
    "readonly": "read-only  {step.target}",
}


class Resolution:
    """What `resolve` found: the steps to take, the links as they will be, what to tell."""

    __slots__ = ("links", "problems", "steps")

    def __init__(
        self, steps: tuple[Step, ...], links: tuple[Link, ...], problems: tuple[Problem, ...]
    ) -> None:
        self.steps = steps
        self.links = links
        self.problems = problems


def resolve(plan: BootPlan, observed: Observed) -> Resolution:
    """The steps that lead from what was observed to what the plan says, in order.

    Links inside /usr come before it turns read-only; then the mounts, so that
    directories are made in the /var that stays; then the other links; / is last.
    """
    before: list[Step] = []
    mounts = _base_mounts(plan, observed)
    unadopted: list[Step] = []
    after: list[Step] = []
    links: list[Link] = []
    problems: list[Problem] = []
    for row in plan.rows:
        state, steps = _row(row, plan, observed)
        links.append((row.path, row.target, state, row.kind))
        for step in steps:
            if step.op == "attach" and step.source == step.target:
                unadopted.append(step)
            elif step.op in ("link", "relink") and row.path.startswith("/usr/"):
                before.append(step)
            else:
                after.append(step)
        problems += _tell(row, state, observed)
    last = []
    root = mountinfo.top(observed.mounts, "/")
    if plan.root and not (root and root.read_only):
        last.append(Step("readonly", "/", readonly=True))
    return Resolution((*before, *mounts, *unadopted, *after, *last), tuple(links), tuple(problems))


def _base_mounts(plan: BootPlan, observed: Observed) -> list[Step]:
    """The mounts of /usr, /etc and /var that are not as they should be."""
    steps = []
    for where, source, readonly in (
        ("/usr", plan.usr, True),
        ("/etc", plan.etc, False),
        ("/var", plan.var, False),
    ):
        mounted = mountinfo.top(observed.mounts, where)
        right_place = source == where or where in observed.placed
        if not (mounted and right_place and mounted.read_only == readonly):
            steps.append(Step("attach", where, source, readonly=readonly))
    if plan.etc != "/etc" and not mountinfo.top(observed.mounts, "/etc/immud"):
        # What configures the boot stays the root file system's own, and is seen where it is.
        steps.append(Step("directory", "/etc/immud", mode=0o755))
        steps.append(Step("attach", "/etc/immud", "/etc/immud"))
    return steps


def _row(row: Row, plan: BootPlan, observed: Observed) -> tuple[str, list[Step]]:  # noqa: PLR0911
    """The state a row of the layout will be in, and the steps that bring it there."""
    kind, content = observed.paths.get(row.path, _ABSENT)
    volatile = row.directory.startswith("/sysroot/")
    if volatile and observed.tmp_mount:
        return "tmpfs", []
    if kind == "link":
        if not leads_to(row, content):
            return "foreign", []
        return "adopted", _directories(row, plan, observed)
    if kind == "other":
        return "foreign", []

    mounted = mountinfo.top(observed.mounts, row.path)
    if row.path.startswith("/usr/") and plan.usr != "/usr":
        # Another /usr brings a directory of its own here, read-only: /var's is bound over it.
        bind = [] if mounted else [Step("attach", row.path, row.directory)]
        return "bound", [*_directories(row, plan, observed), *bind]
    if mounted and not _is_clone(mounted, row.path, observed):
        return ("bound" if row.kind == "bind" else "mounted"), []
    if row.path in observed.fstab or row.path in observed.units:
        return "blocked", []
    below = any(where.startswith(row.path + "/") for where in observed.fstab)
    # What could not be looked into is somebody's directory until the opposite is known.
    if kind in ("directory", "unknown") or mounted or below:
        swappable = volatile and kind == "directory" and not mounted and not below
        if swappable and observed.paths.get(row.directory, _ABSENT)[0] in ("absent", "empty"):
            swap = Step("swap", row.path, row.target, mode=row.mode)
            return "adopted", [swap, Step("tmpfs", row.directory, mode=row.mode)]
        writable = mounted is not None and not mounted.read_only
        keep = [] if writable or kind == "absent" else [Step("attach", row.path, row.path)]
        return ("blocked" if below else "unadopted"), keep
    if row.kind == "bind":
        place = [] if kind == "empty" else [Step("directory", row.path, mode=row.mode)]
        bind = [Step("attach", row.path, row.directory)]
        return "bound", [*_directories(row, plan, observed), *place, *bind]
    link = Step("link" if kind == "absent" else "relink", row.path, row.target)
    return "adopted", [*_directories(row, plan, observed), link]


def _directories(row: Row, plan: BootPlan, observed: Observed) -> list[Step]:
    """What is missing behind a row's link: its directories, and the tmpfs of a volatile one.

    On a /var that is yet to be mounted nothing can be looked at beforehand, so
    every step is there; each makes its directory only "where it is missing".
    Inside, whatever is there counts: Debian's /usr/local/man is a link.
    """
    there = plan.var == "/var" or "/var" in observed.placed
    steps = []
    for path in row.directories:
        kind, content = observed.paths.get(path, _ABSENT) if there else _ABSENT
        if path == row.directory and kind == "link" and leads_to(row, content):
            steps.append(Step("unlink", path, content))
        elif kind != "absent" and (path != row.directory or kind in ("directory", "empty")):
            continue
        steps.append(Step("directory", path, mode=row.mode if path == row.directory else 0o755))
    if row.directory.startswith("/sysroot/") and not mountinfo.top(observed.mounts, row.directory):
        steps.append(Step("tmpfs", row.directory, mode=row.mode))
    return steps


def expected(plan: BootPlan, links: tuple[Link, ...]) -> tuple[tuple[str, str, str], ...]:
    """The mounts that have to be there, as (path, `ro` or `rw`, source), / first."""
    found = [("/", "ro", "/")] if plan.root else []
    found += [("/usr", "ro", plan.usr), ("/etc", "rw", plan.etc), ("/var", "rw", plan.var)]
    rows = {row.path: row for row in plan.rows}
    for path, _, state, _ in links:
        if state == "unadopted":
            found.append((path, "rw", path))
        elif state == "bound":
            found.append((path, "rw", rows[path].directory))
    return tuple(found)


def leads_to(row: Row, content: str) -> bool:
    """Whether a link with this content is the row's own, relative or absolute."""
    return content == row.target or content.rstrip("/") == row.directory


def _is_clone(entry: mountinfo.MountEntry, path: str, observed: Observed) -> bool:
    """Whether the mount shows the same directory that is below it: our writable clone."""
    base = mountinfo.top(observed.mounts, "/usr" if path.startswith("/usr/") else "/")
    if base is None or entry.dev != base.dev:
        return False
    rest = path.removeprefix("/usr") if path.startswith("/usr/") else path
    return entry.root == base.root.rstrip("/") + rest


def _tell(row: Row, state: str, observed: Observed) -> list[Problem]:
    data = (("path", row.path), ("target", row.target))
    if state == "unadopted":
        text = (
            f"{row.path} is a directory and stays where it is, writable; "
            f"'immud adopt {row.path}' moves it to {row.directory}"
        )
        return [("notice", "unadopted", text, data)]
    if state == "blocked" and row.path in observed.units:
        text = (
            f"{row.path} stays a directory because a unit of systemd mounts something there; "
            f"'immud adopt {row.path}' says how to change that"
        )
        return [("notice", "blocked", text, data)]
    if state == "blocked":
        below = next(w for w in observed.fstab if w == row.path or w.startswith(row.path + "/"))
        moved = row.directory + below.removeprefix(row.path)
        text = f"{row.path} stays a directory because /etc/fstab mounts {below}; " + (
            f"'immud adopt {row.path}' has it mounted at {moved}"
            if below == row.path
            else f"name {moved} there instead, then run 'immud adopt {row.path}'"
        )
        return [("notice", "blocked", text, data)]
    if state == "foreign":
        text = f"{row.path} is neither a directory nor a link to {row.target}; it is left alone"
        return [("warning", "foreign", text, data)]
    return []
