"""What phase 1 looks at before it decides: one pass of lstat, mountinfo and fstab.

Everything the planner needs and nothing else, as plain values, so that
`steps.resolve` stays pure and `immud plan` sees exactly what boot will see.
"""

import errno
import os

from immud.early import mountinfo
from immud.early.plan import BootPlan, unescape

FSTAB = "/etc/fstab"

# Where systemd looks for a unit that local-fs.target wants, most important first.
_UNIT_DIRS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system")


class Observed:
    """The machine as it is.

    `paths` maps a path to what is there: `absent`, `link`, `empty` (a directory
    without entries), `directory`, `other` or `unknown`, with the link's content. `placed`
    holds those of /usr, /etc and /var that show their configured source already, `stopped` the
    numbers of file systems that take no writes, whatever their mounts say (see immud.watch.system).
    """

    __slots__ = ("fstab", "mounts", "paths", "placed", "stopped", "tmp_mount")

    def __init__(
        self,
        *,
        mounts: tuple[mountinfo.MountEntry, ...] = (),
        paths: dict[str, tuple[str, str]] | None = None,
        fstab: tuple[str, ...] = (),
        placed: frozenset[str] = frozenset(),
        tmp_mount: bool = False,
        stopped: frozenset[str] = frozenset(),
    ) -> None:
        self.mounts = mounts
        self.paths = paths or {}
        self.fstab = fstab
        self.placed = placed
        self.tmp_mount = tmp_mount
        self.stopped = stopped


def observe(
    plan: BootPlan, root: str = "", mounts: tuple[mountinfo.MountEntry, ...] | None = None
) -> Observed:
    """Look at the machine, or at the tree below `root`, for everything `plan` is about.

    `mounts` are those that matter, where the caller knows them already.
    """
    mounts = mountinfo.read() if mounts is None else mounts
    shut = () if root else tuple(f"{path}/" for path in _other_file_systems(plan, mounts))
    wanted = {path for row in plan.rows for path in (row.path, *row.directories)}
    return Observed(
        mounts=mounts,
        paths={
            path: ("directory", "") if f"{path}/".startswith(shut) else look(root + path)
            for path in wanted
        },
        fstab=fstab_targets(root + FSTAB),
        placed=frozenset(
            where
            for where, source in (("/usr", plan.usr), ("/etc", plan.etc), ("/var", plan.var))
            if source != where and _shows(root + where, source)
        ),
        tmp_mount=_wants_tmp_mount(root),
    )


def paths_of(plan: BootPlan) -> set[str]:
    """The paths at which a mount matters to `plan`."""
    rows = [path for row in plan.rows for path in (row.path, row.directory)]
    return {"/", "/usr", "/etc", "/var", "/etc/immud", *rows}


def _other_file_systems(
    plan: BootPlan, mounts: tuple[mountinfo.MountEntry, ...]
) -> tuple[str, ...]:
    """The rows' places at which a file system other than that of /, /usr and /var is mounted.

    What is in one does not matter, and nobody looks: its server may be away, or it is systemd
    that mounts it as soon as anybody does, once there is a network, which waits for phase 1.
    """
    base = [mountinfo.top(mounts, path) for path in ("/", "/usr", "/var")]
    own = {entry.dev for entry in base if entry}
    targets = {entry.target for entry in mounts}  # most places are none, and that is quickly said
    places = targets.intersection(p for row in plan.rows for p in (row.path, *row.directories))
    return tuple(
        path for path in places if (entry := mountinfo.top(mounts, path)) and entry.dev not in own
    )


def look(path: str) -> tuple[str, str]:
    """What is at `path`, and a link's content; `unknown` where the file system does not say.

    Nothing is mounted by looking, not even where an automount point came this very moment.
    """
    try:
        return "link", os.readlink(path)
    except FileNotFoundError:
        return "absent", ""
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: it is there, and not a link
            return "unknown", ""
    try:
        # With O_PATH, and then by way of "."; anything else has an automount point mounted.
        at = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
        finally:
            os.close(at)
        try:
            with os.scandir(fd) as entries:
                return ("directory" if next(entries, None) else "empty"), ""
        finally:
            os.close(fd)
    except NotADirectoryError:
        return "other", ""
    except OSError as error:
        # What is private is hardly empty; root sees what is in it.
        return ("directory" if isinstance(error, PermissionError) else "unknown"), ""


def fstab_targets(path: str = FSTAB) -> tuple[str, ...]:
    """The mount points fstab names, in its order; none where there is no fstab."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except OSError:
        return ()
    fields = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return tuple(
        unescape(field[1]).rstrip("/") or "/"
        for field in fields
        if len(field) > 1 and field[1].startswith("/")
    )


def _shows(where: str, source: str) -> bool:
    """Whether `where` is the directory `source`, or a mount of the file or device it names."""
    if source.startswith("/"):
        try:
            if os.path.samefile(where, source):
                return True
        except OSError:
            return False
    from immud.early import sources  # noqa: PLC0415 - only where a source is elsewhere

    return sources.is_mounted(where, source)


def _wants_tmp_mount(root: str) -> bool:
    """Whether the system makes /tmp a tmpfs of its own: tmp.mount enabled and not masked.

    Where that cannot be seen, it does not: a link is harmless then, for tmp.mount leaves
    one alone, and a /tmp that nobody makes would be read-only.
    """
    for base in _UNIT_DIRS:
        kind, content = look(f"{root}{base}/tmp.mount")
        if kind == "link" and content == "/dev/null":
            return False
        if look(f"{root}{base}/local-fs.target.wants/tmp.mount")[0] not in ("absent", "unknown"):
            return True
    return False
