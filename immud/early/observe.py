"""What phase 1 looks at before it decides: one pass of lstat, mountinfo and fstab.

Everything the planner needs and nothing else, as plain values, so that
`steps.resolve` stays pure and `immud plan` sees exactly what boot will see.
"""

import os
import stat

from immud.early import mountinfo
from immud.early.plan import BootPlan

FSTAB = "/etc/fstab"

# Where somebody may have put a unit (systemd.unit(5)), most important first.
_UNIT_DIRS = (
    *("/etc/systemd/system", "/run/systemd/system"),
    *("/usr/local/lib/systemd/system", "/usr/lib/systemd/system"),
)


class Observed:
    """The machine as it is.

    `paths` maps a path to what is there: `absent`, `link`, `empty` (a directory without entries,
    where that matters), `directory`, `other` or `unknown`, with the link's content. `placed` holds
    those of /usr, /etc and /var that show their configured source already, `stopped` the numbers of
    file systems that take no writes, whatever their mounts say (see immud.watch.system), `units`
    the rows' paths at which a unit of somebody's own mounts something.
    """

    __slots__ = ("fstab", "mounts", "paths", "placed", "stopped", "tmp_mount", "units")

    def __init__(
        self,
        *,
        mounts: tuple[mountinfo.MountEntry, ...] = (),
        paths: dict[str, tuple[str, str]] | None = None,
        fstab: tuple[str, ...] = (),
        units: tuple[str, ...] = (),
        placed: frozenset[str] = frozenset(),
        tmp_mount: bool = False,
        stopped: frozenset[str] = frozenset(),
    ) -> None:
        self.mounts = mounts
        self.paths = paths or {}
        self.fstab = fstab
        self.units = units
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
    # What is behind a link need not be looked into, but for what is made anew at every boot.
    wanted = {path: look_at for row in plan.rows for path in row.directories}
    for row in plan.rows:
        wanted[row.path] = look
        if row.directory.startswith("/sysroot/"):
            wanted[row.directory] = look
    paths = {
        path: ("directory", "") if f"{path}/".startswith(shut) else how(root + path)
        for path, how in wanted.items()
    }
    return Observed(
        mounts=mounts,
        paths=paths,
        fstab=fstab_targets(root + FSTAB),
        # (Nothing is mounted at a link; /tmp is a matter of its own.)
        units=tuple(
            row.path
            for row in plan.rows
            if paths[row.path][0] != "link"
            and not row.directory.startswith("/sysroot/")
            and _has_unit(row.path, root)
        ),
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


def look_at(path: str) -> tuple[str, str]:
    """What is at `path`, and a link's content; `unknown` where the file system does not say.

    A directory is not opened, for that costs a read of the disk, and may be empty.
    """
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            return "directory", ""
        return ("link", os.readlink(path)) if stat.S_ISLNK(mode) else ("other", "")
    except FileNotFoundError:
        return "absent", ""
    except OSError:
        return "unknown", ""


def look(path: str) -> tuple[str, str]:
    """The same, and a directory without entries is `empty`.

    Nothing is mounted by looking, not even where an automount point came this very moment.
    """
    kind, content = look_at(path)
    if kind != "directory":
        return kind, content
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
        return "other", ""  # since that look
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
    return tuple(
        fields[1].rstrip("/") or "/"
        for fields in map(fstab_fields, lines)
        if len(fields) > 1 and fields[1].startswith("/")
    )


def fstab_fields(line: str) -> list[str]:
    """The fields of a line of fstab(5), without its octal escapes; none of a comment.

    As libmount reads them: each escape is one byte, and what is no escape stays as it is.
    """
    fields = line.split()
    if not fields or fields[0].startswith("#"):
        return []
    return [_plain(field) for field in fields] if "\\" in line else fields


def _plain(field: str) -> str:
    head, *rest = os.fsencode(field).split(b"\\")
    for piece in rest:
        octal = piece[:3]
        # (\400 and above would be more than a byte.)
        if len(octal) == 3 and octal[:1] in b"0123" and not octal.strip(b"01234567"):
            head += bytes((int(octal, 8),)) + piece[3:]
        else:
            head += b"\\" + piece
    return os.fsdecode(head)


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


def unit_name(path: str) -> str:
    """The name of a path's unit without its suffix, as systemd-escape(1) with --path."""
    parts = [part for part in path.split("/") if part]
    text = "\0".join(parts)
    name = "".join(
        "-" if byte == 0
        else chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in ":_.")
        else f"\\x{byte:02x}"
        for byte in os.fsencode(text)
    )  # fmt: skip
    return (f"\\x2e{name[1:]}" if name.startswith(".") else name) or "-"


def _has_unit(path: str, root: str) -> bool:
    """Whether somebody has made a mount unit for `path`, and nobody has masked it."""
    name = unit_name(path)
    for base in _UNIT_DIRS:
        found = look(f"{root}{base}/{name}.mount")
        if found[0] not in ("absent", "unknown"):
            return found != ("link", "/dev/null")
    return False


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
