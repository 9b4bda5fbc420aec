"""What the tombs of a configuration lay claim to: no two may be in each other's way. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from immud.config.rules import VAR_SYSTEM, within
from immud.early.plan import Row
from immud.model import TombConfig

# Whoever can write to what a tomb puts here would be root, or could keep immud from its work.
CRITICAL = (
    *("/etc/immud", "/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/sudoers"),
    *("/etc/sudoers.d", "/etc/sudo.conf", "/etc/pam.d", "/etc/security", "/etc/nsswitch.conf"),
    *("/etc/systemd", "/etc/udev", "/etc/dbus-1", "/etc/polkit-1", "/etc/modprobe.d", "/etc/fstab"),
    *("/etc/crypttab", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload"),
    *(
        "/etc/ld.so.cache",
        "/etc/profile",
        "/etc/profile.d",
        "/etc/environment",
        "/etc/alternatives",
    ),
    *("/etc/init.d", "/etc/cron.d", "/etc/crontab", "/etc/apt", "/etc/dpkg", "/etc/kernel"),
    *("/etc/ssh", "/etc/tmpfiles.d", "/etc/sysusers.d", "/etc/machine-id", "/var/roothome"),
    *("/var/lib/dpkg", "/var/lib/systemd", "/var/lib/polkit-1", "/var/spool/cron", "/var/usrlocal"),
)

Wrong = tuple[tuple[str, ...], str]
"""A key, and what is wrong with it."""


def nested(tombs: tuple[TombConfig, ...]) -> tuple[tuple[TombConfig, ...], tuple[Wrong, ...]]:
    """The tombs, those inside others with what holds for them, and what is wrong with those.

    One that is inside another has nothing in its place while it is away but what is there:
    a tmpfs would keep the outer one from being closed.
    """
    settled, wrongs = [], []
    for tomb in tombs:
        outer = [o.name for o in tombs if o.mount != tomb.mount and within(tomb.mount, o.mount)]
        if outer and tomb.absent not in ("", "directory"):
            text = f'has to be "directory" for a tomb inside another, which is {outer[0]}'
            wrongs.append((("tomb", tomb.name, "absent"), text))
        settled.append(replace(tomb, absent="directory") if outer else tomb)
    return tuple(settled), tuple(wrongs)


def of_binds(
    tombs: tuple[TombConfig, ...], rows: tuple[Row, ...], sources: Mapping[str, str]
) -> Iterator[Wrong]:
    """What is wrong with the binds: the key that says so, and a sentence."""
    before: list[tuple[str, str]] = []
    for tomb in tombs:
        if tomb.bind_hooks and tomb.mount == "/var/home":
            key: tuple[str, ...] = ("tomb", tomb.name, "bind_hooks")
            yield key, "is for a tomb that is mounted elsewhere: people's homes are in this one"
        for path, target in tomb.binds:
            key = ("tomb", tomb.name, "binds", path)
            inside = f"{tomb.mount}/{path}"
            wrong = [
                *(
                    f"cannot show {path}: it is where tomb {other.name} goes"
                    for other in tombs
                    if other is not tomb
                    and within(inside, other.mount)
                    and within(other.mount, tomb.mount)
                ),
                *_reasons(target, tombs, rows, sources),
                *(
                    f"and {other} of tomb {owner} are one inside the other"
                    for other, owner in before
                    if _touch(target, other)
                ),
            ]
            if wrong:
                yield key, f"{target} {wrong[0]}"
            before.append((target, tomb.name))


def _touch(one: str, two: str) -> bool:
    return within(one, two) or within(two, one)


def _reasons(
    target: str, tombs: tuple[TombConfig, ...], rows: tuple[Row, ...], sources: Mapping[str, str]
) -> Iterator[str]:
    """Why nothing may be put at `target`."""
    for row in rows:
        if within(target, row.path) and row.kind == "link":
            real = row.directory + target.removeprefix(row.path)
            yield f'is behind the link at {row.path}; write "{real}"'
    if not target.startswith(("/var/", "/etc/")):
        yield "is neither below /var nor below /etc"
    for row in rows:
        if within(row.directory, target):
            yield f"would hide {row.directory}, where {row.path} leads; choose one below it"
    for critical in CRITICAL:
        if _touch(target, critical):
            yield f"has to do with {critical}: whoever can write to the drive would be root"
    if target in VAR_SYSTEM:
        yield "belongs to the system; choose a directory below it"
    for tomb in tombs:
        if _touch(target, tomb.mount):
            yield f"and {tomb.mount}, where tomb {tomb.name} goes, are one inside the other"
    for name, source in sources.items():
        if source.startswith("/") and source != f"/{name}" and _touch(target, source):
            yield f"and {source}, the source of /{name}, are one inside the other"
