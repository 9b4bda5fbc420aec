"""From what was seen of a machine to what is in the way. Pure."""

from collections.abc import Iterator

from immud.adopt import apparmor
from immud.adopt.facts import Mounted, RowFacts
from immud.doctor.facts import Advice, Seen
from immud.early.plan import Row
from immud.model import Severity

# systemd#41045: some versions protect what /home is a link to, some the link alone.
_DISARMED = "some versions of systemd hide the link and not the homes behind it, silently"
# Of a file system's bytes or inodes, from where boot's own files are in danger.
FULL = 0.97


def judge(seen: Seen) -> tuple[Advice, ...]:
    """Everything in the way, the worst first."""
    found = [
        *_checked(seen),
        *_rows(seen),
        *_services(seen),
        *_homes(seen),
        *_partitions(seen),
        *_apparmor(seen),
        *_machine(seen),
    ]
    order = (Severity.ERROR, Severity.WARNING, Severity.NOTICE)
    return tuple(sorted(found, key=lambda advice: order.index(advice.severity)))


def _checked(seen: Seen) -> Iterator[Advice]:
    """What `immud enable` looks at as well."""
    own = {fact.row.path for fact in seen.adoption.rows if _own_mount(fact)}
    for problem in seen.problems:
        if problem.code == "fstab" and problem.data.get("path") in own:
            continue  # said of the mount itself
        what, why = problem.data["what"], problem.data["why"]
        mend = tuple(problem.data["mend"].splitlines())
        fix = "bytecode" if problem.code == "no-bytecode" else ""
        yield Advice(problem.severity, problem.code, what, why, mend, fix)


def _rows(seen: Seen) -> Iterator[Advice]:
    for fact in seen.adoption.rows:
        path, directory = fact.row.path, fact.row.directory
        if fact.at_boot and seen.tmp_mount:
            continue  # tmp.mount leaves a link alone, by a condition of its own
        for one in fact.declared:
            if one.origin.startswith("/etc/fstab") or one.where == directory:
                continue  # fstab is checked already; behind the link is where it belongs
            instead = directory + one.where.removeprefix(path)
            yield Advice(
                Severity.ERROR if fact.linked else Severity.WARNING,
                "mount-unit",
                f"{one.origin} mounts {one.what or 'something'} at {one.where}",
                "systemd refuses a mount unit whose path crosses a link, and the boot may stop "
                "with it",
                (f"# in {one.origin}: Where={instead}", "systemctl daemon-reload"),
            )
        if own := _own_mount(fact):
            yield Advice(
                Severity.WARNING,
                "separate-partition",
                f"{path} is a file system of its own, {own.source} ({own.fstype})",
                f"a link cannot take the place of a mount, so {path} stays as it is until that "
                f"is mounted at {directory}",
                (f"immud adopt {path}",),
            )
        elif fact.row.kind == "link" and fact.path.is_directory and not fact.path.empty:
            yield _unadopted(fact)


def _own_mount(fact: RowFacts) -> Mounted | None:
    return next((mount for mount in fact.mounts if not mount.own), None)


def _unadopted(fact: RowFacts) -> Advice:
    path = fact.row.path
    if fact.at_boot:
        why = "it changes at the next boot with immud enabled, before programs use it"
        return Advice(Severity.NOTICE, "unadopted", f"{path} is a directory", why)
    return Advice(
        Severity.NOTICE,
        "unadopted",
        f"{path} is a directory with something in it",
        f"it stays where it is, and writable, instead of being a link to {fact.row.target}",
        ("immud adopt --dry-run", f"immud adopt {path}"),
    )


def _row(seen: Seen, path: str) -> Row | None:
    return next((fact.row for fact in seen.adoption.rows if fact.row.path == path), None)


def _services(seen: Seen) -> Iterator[Advice]:
    home = _row(seen, "/home")
    if home and home.kind == "link" and seen.protect_home:
        names = sorted(seen.protect_home)
        is_now = "is" if any(f.linked for f in seen.adoption.rows if f.row == home) else "is to be"
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        yield Advice(
            Severity.WARNING,
            "protect-home",
            f"these units ask for ProtectHome=, and /home {is_now} a link: {shown}",
            _DISARMED,
            (
                "# /etc/immud/immud.toml, for a bind mount instead of the link:",
                "[links]",
                '"/home" = { kind = "bind" }',
            ),
        )


def _homes(seen: Seen) -> Iterator[Advice]:
    for home in seen.homes:
        above = next(f.row for f in seen.adoption.rows if home.path.startswith(f.row.path + "/"))
        new = above.directory + home.path.removeprefix(above.path)
        yield Advice(
            Severity.NOTICE,
            "home-in-passwd",
            f"the home of {home.user} is {home.path} in /etc/passwd",
            f"it works through the link; programs that compare $HOME with {new} may be confused",
            (f"usermod --home {new} {home.user}   # while {home.user} is not logged in",),
        )
    row = _row(seen, "/home")
    # While /home is a directory, a home that is made in the other keeps it from being adopted.
    linked = any(fact.adopted for fact in seen.adoption.rows if fact.row == row)
    if row and linked and seen.new_homes == row.path:
        yield Advice(
            Severity.NOTICE,
            "new-homes",
            f"new users get homes in {seen.new_homes}",
            f"their HOME would go through the link, and differ from where it is, {row.directory}",
            (f"useradd --defaults --base-dir {row.directory}",),
            "new-homes",
        )


def _partitions(seen: Seen) -> Iterator[Advice]:
    for partition in seen.partitions:
        where, mend = partition.where, f"{partition.mend}   # no-auto"
        line = f"# in /etc/fstab: {partition.device} {where} auto defaults 0 2"
        yield Advice(
            Severity.ERROR,
            "gpt-home",
            f"{partition.device} has the GPT type of what belongs at {where}, and systemd mounts "
            "it there without a line in fstab"
            + ("" if partition.mounted else f", as soon as nothing is in {where}"),
            f"with {where} as a link systemd refuses that, and every boot ends in emergency mode",
            (mend, line, f"systemctl daemon-reload; immud adopt {where}")
            if partition.mounted
            else (mend,),
        )


def _apparmor(seen: Seen) -> Iterator[Advice]:
    has = seen.adoption.apparmor
    adopted = [fact.row for fact in seen.adoption.rows if fact.linked]
    # Whatever else is in it: adopting names rows that only the next boot will link.
    said = (has.text or "").splitlines()
    lacking = [line for line in apparmor.text(adopted).splitlines() if line not in said]
    if has.installed and lacking:
        yield Advice(
            Severity.ERROR if has.active else Severity.WARNING,
            "apparmor",
            f"{apparmor.FILE} does not say where the links lead",
            "AppArmor sees resolved paths: profiles that allow /home forbid /var/home",
            ("immud doctor --fix", "systemctl reload apparmor"),
            "apparmor",
        )


def _machine(seen: Seen) -> Iterator[Advice]:
    for room in seen.rooms:
        if room.read_only:
            yield Advice(
                Severity.ERROR,
                "read-only-file-system",
                f"the file system of {room.path} itself is read-only",
                "not only its mount: nothing can be written to it, the boot's own notes included",
                ("journalctl -k --grep 'remount|I/O error|EXT4-fs error'",),
            )
        elif max(room.space, room.inodes) >= FULL:
            of = "its space" if room.space >= room.inodes else "its inodes"
            yield Advice(
                Severity.WARNING,
                "full-file-system",
                f"the file system of {room.path} has used {max(room.space, room.inodes):.0%} "
                f"of {of}",
                "logs, and the plan of the next boot, need room",
                (f"du -xh {room.path} | sort -h | tail",),
            )
    for unit, what in sorted(seen.automounters.items()):
        yield Advice(
            Severity.WARNING,
            "automounter",
            f"{unit} mounts {what}",
            "what it mounts at a path of the layout, or of a tomb, would hide that",
            (f"systemctl cat {unit}",),
        )
    for module in seen.modules:
        yield Advice(
            Severity.ERROR,
            "kernel-module",
            f"this kernel has no {module}",
            "what is configured needs it",
            (f"modinfo {module}", "apt install linux-image-amd64   # not the cloud kernel"),
        )
    if seen.tmp_mount:
        yield Advice(
            Severity.NOTICE,
            "tmp-mount",
            "/tmp is the tmpfs of systemd's own tmp.mount",
            "it stays that, which is as volatile as the link to sysroot/tmp would be",
        )
