"""What `immud enable` makes sure of before it touches anything.

`look` gathers what there is to know of a system, its own or one in another root
directory; `check` is pure and says what would break, why, and what to do. An error
stops `enable`, a warning or notice is only said.
"""

import errno
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from immud import rootlogin
from immud.config.load import examine
from immud.enable import etcs, fstab
from immud.enable.finding import error, finding
from immud.enable.fstab import FstabLine
from immud.errors import ConfigError
from immud.model import Config, Problem, Severity

LIBRARIES = ("pystemd", "dbus_next", "pyudev", "structlog")
UNIT = "/usr/lib/systemd/system/immud.service"
# Where somebody may have put it, as systemd.unit(5) has it, and what systemd-gpt-auto-generator(8)
# makes.
VAR_UNITS = tuple(
    f"{place}/var.mount"
    for place in (
        *("/etc/systemd/system", "/run/systemd/system"),
        *("/usr/local/lib/systemd/system", "/usr/lib/systemd/system"),
        "/run/systemd/generator.late",
    )
)


@dataclass(frozen=True, slots=True)
class System:
    """A system as `check` judges it.

    `here` tells the running system from one that is being put together, in a root
    directory, a chroot or a container, where devices and kernel are another's.
    `absent_sources` are those that lead nowhere, `unmarked_sources` those that nothing
    says are meant. `var_unit` is the file of a var.mount that fstab has nothing to do with.
    """

    here: bool = True
    systemd: bool = True
    unit: bool = True
    usr_merged: bool = True
    var_is_a_mount: bool = False
    var_unit: str = ""
    kernel: str = ""
    missing_calls: tuple[str, ...] = ()
    missing_libraries: tuple[str, ...] = ()
    uncompiled: tuple[str, ...] = ()
    absent_sources: tuple[str, ...] = ()
    unmarked_sources: tuple[str, ...] = ()
    fstab: tuple[FstabLine, ...] = ()
    links: frozenset[str] = frozenset()
    root_can_log_in: bool = True


def check(
    config: Config, system: System, errors: tuple[ConfigError, ...] = ()
) -> tuple[Problem, ...]:
    """Everything that speaks against enabling immud on `system`, the worst first. Pure."""
    found = [
        *(error("config-invalid", str(wrong), file=wrong.file) for wrong in errors),
        *_machine(system),
        *_sources(config, system),
        *fstab.check(config, system.fstab, system.links),
        *_var_unit(config, system),
        *_logins(config, system),
    ]
    order = (Severity.ERROR, Severity.WARNING, Severity.NOTICE)
    return tuple(sorted(found, key=lambda problem: order.index(problem.severity)))


def _machine(system: System) -> Iterator[Problem]:
    if system.missing_calls:
        calls = " and ".join(system.missing_calls)
        yield finding(
            Severity.WARNING,
            "old-kernel",
            f"Linux {system.kernel} has no {calls}",
            "boot Linux 5.12 or newer",
            why="for a moment at boot, /usr is mounted but not yet read-only: services that are "
            "there before keep a writable one",
        )
    if not system.systemd:
        yield finding(
            Severity.ERROR if system.here else Severity.WARNING,
            "no-systemd",
            "systemd is not running as PID 1",
            "boot this system with systemd first"
            if system.here
            else "that is as it should be only while this system is being put together",
            why="nothing else starts immud at boot",
        )
    if not system.unit:
        yield error(
            "no-unit",
            f"{UNIT} is missing",
            "install immud's package again",
            why="there is nothing to enable",
            mend=("apt install --reinstall immud",),
        )
    if not system.usr_merged:
        yield error(
            "no-usrmerge",
            "/bin is a directory of its own",
            "install the usrmerge package",
            why="programs outside /usr would stay writable, and a /usr from elsewhere would not "
            "fit",
            mend=("apt install usrmerge",),
        )
    for name in system.missing_libraries:
        install = "apt install python3-" + name.replace("_", "-")
        yield error(
            "missing-library",
            f"the Python library {name} is missing",
            install,
            why="the daemon cannot run without it",
            mend=(install,),
            library=name,
        )
    if system.uncompiled:
        compile_them = "py3compile -p immud"
        yield finding(
            Severity.WARNING,
            "no-bytecode",
            f"{len(system.uncompiled)} modules of immud are not compiled",
            f"run {compile_them}",
            why="once /usr is read-only never will be: every boot takes longer",
            mend=(f"immud unlock -- {compile_them}",),
            first=system.uncompiled[0],
        )
    if system.var_is_a_mount:
        text = "/var is a file system of its own, and is left as it is"
        yield finding(Severity.NOTICE, "var-mounted", text)


def _sources(config: Config, system: System) -> Iterator[Problem]:
    for name in ("usr", "etc", "var"):
        source = getattr(config, name)
        said = f'{name}.source is "{source}", and'
        if source in system.unmarked_sources and name != "usr":
            yield error(
                "unmarked-source",
                f"{said} no file .immud in it says that it is meant",
                f"immud enable --seed copies /{name} to it if it is empty, or resumes a copy "
                "that was cut off, and makes that file",
                why="boot would not use it",
                mend=("immud enable --seed",),
                name=name,
                source=source,
            )
        if source not in system.absent_sources:
            continue
        if source.startswith("/"):
            there = "nothing" if name == "usr" else "no directory"
            what, do = f"{said} there is {there}", "make it, or correct the key"
        elif system.here:
            what = f"{said} no block device answers to that"
            do = "connect it, or correct the key (blkid shows what there is)"
        else:
            what = f'whether there is a file system "{source}" for {name}.source shows only at boot'
            yield finding(Severity.WARNING, "source-unknown", what, source=source)
            continue
        yield error("no-source", what, do, source=source)


def _var_unit(config: Config, system: System) -> Iterator[Problem]:
    if not system.var_unit or any(line.where == "/var" for line in system.fstab):
        return
    if system.var_unit == VAR_UNITS[-1]:
        yield error(
            "var-unit",
            "systemd mounts /var only because of its GPT type and would stop doing so under immud",
            "add it to /etc/fstab (findmnt /var shows what it is)",
            path="/var",
        )
    elif config.var != "/var":
        yield error(
            "var-unit",
            f"{system.var_unit} mounts /var",
            "remove one of the two",
            why="var.source names another place",
            path="/var",
        )


def _logins(config: Config, system: System) -> Iterator[Problem]:
    for tomb in config.tombs:
        if tomb.absent == "nologin" and not system.root_can_log_in:
            yield error(
                "no-root-login",
                f'with absent = "nologin" only root may log in while tomb {tomb.name} is away, but '
                "root has no way to log in",
                'give root a password (passwd root), or set absent to "volatile"',
                tomb=tomb.name,
            )


# --- looking ----------------------------------------------------------------------


def examine_system(root: str = "/") -> tuple[Config, tuple[Problem, ...]]:
    """The configuration in `root`, and everything that speaks against enabling it."""
    config, errors = examine(root)
    return config, check(config, look(config, root), errors)


def look(config: Config, root: str = "/") -> System:
    """Observe the system in `root`. Changes nothing."""
    here = os.path.realpath(root) == "/" and not _in_chroot() and not _in_bare_container()
    sources = (("/usr", config.usr), ("/etc", config.etc), ("/var", config.var))
    rows = (row.path for row in config.rows)
    return System(
        here=here,
        systemd=os.path.isdir("/run/systemd/system") and os.path.realpath(root) == "/",
        unit=os.path.lexists(_below(root, UNIT)),
        usr_merged=os.path.islink(_below(root, "/bin")),
        var_is_a_mount=_is_mount(_below(root, "/var")),
        var_unit=next((unit for unit in VAR_UNITS if os.path.isfile(_below(root, unit))), ""),
        kernel=os.uname().release,
        missing_calls=_missing_calls() if here else (),
        missing_libraries=_missing_libraries(root),
        uncompiled=_uncompiled(),
        absent_sources=tuple(s for w, s in sources if not _source_exists(w, s, root)),
        unmarked_sources=_unmarked(config, root, here=here),
        fstab=(*fstab.read(_below(root, "/etc/fstab")), *_own_fstab(root)),
        links=frozenset(path for path in rows if os.path.islink(_below(root, path))),
        root_can_log_in=rootlogin.possible(root),
    )


def _own_fstab(root: str) -> tuple[FstabLine, ...]:
    """The lines that PID 1 mounts by before another /etc is shown, where one is shown now."""
    if etcs.own_is_shown(root):
        return ()
    try:
        with etcs.own() as etc:
            return fstab.read(f"/proc/self/fd/{etc}/fstab", own=True)
    except PermissionError:  # not root, who alone can enable anything
        return ()


def _below(root: str, path: str) -> str:
    return posixpath.join(root, path.lstrip("/"))


def _in_chroot() -> bool:
    """As ischroot(1): is this root another one than PID 1's?"""
    try:
        return not os.path.samefile("/", "/proc/1/root")
    except FileNotFoundError:  # no /proc: no system that runs is without it
        return True
    except OSError:  # not root, and so not allowed to know
        return False


def _in_bare_container() -> bool:
    """A container in which no systemd runs, as when an image is built in it."""
    managed = "container" in os.environ or os.path.exists("/.dockerenv")
    return managed and not os.path.isdir("/run/systemd/system")


def _is_mount(path: str) -> bool:
    """Another file system than its parent's; a bind mount of the same one is not meant."""
    try:
        return os.lstat(path).st_dev != os.lstat(os.path.dirname(path)).st_dev
    except OSError:
        return False


def _missing_calls() -> tuple[str, ...]:
    """The mount calls this kernel does not have.

    A bad descriptor makes each fail before it does anything: with EBADF, or with
    ENOSYS where the call is not there at all.
    """
    from immud.early import kernel  # noqa: PLC0415 - brings ctypes, which only this needs

    missing = []
    try:
        kernel.open_tree("", kernel.OPEN_TREE_CLONE | kernel.AT_EMPTY_PATH, dir_fd=-1)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            missing.append("open_tree(2)")
    try:
        kernel.mount_setattr("", set_=kernel.MOUNT_ATTR_RDONLY, dir_fd=-1)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            missing.append("mount_setattr(2)")
    return tuple(missing)


def _missing_libraries(root: str) -> tuple[str, ...]:
    if os.path.realpath(root) != "/":
        # Debian's place for them; another interpreter's path cannot be asked from here.
        place = _below(root, "/usr/lib/python3/dist-packages")
        return tuple(name for name in LIBRARIES if not os.path.isdir(os.path.join(place, name)))
    from importlib.util import find_spec  # noqa: PLC0415 - slow, and only this needs it

    return tuple(name for name in LIBRARIES if find_spec(name) is None)


def _uncompiled() -> tuple[str, ...]:
    """Modules of this very package without bytecode for this very interpreter."""
    from importlib.util import cache_from_source  # noqa: PLC0415 - as above

    package = os.path.dirname(os.path.dirname(__file__))
    return tuple(
        os.path.relpath(os.path.join(directory, name), package)
        for directory, _, names in sorted(os.walk(package))
        for name in sorted(names)
        if name.endswith(".py")
        and not os.path.exists(cache_from_source(os.path.join(directory, name)))
    )


def _source_exists(where: str, source: str, root: str) -> bool:
    """Is there what the source of `where` names? An image file will do for /usr alone."""
    if source.startswith("/"):
        path = _below(root, source)
        return os.path.exists(path) if where == "/usr" else os.path.isdir(path)
    from immud.early.sources import split  # noqa: PLC0415 - brings ctypes, which only this needs

    return os.path.exists(split(source)[0])


def _unmarked(config: Config, root: str, *, here: bool) -> tuple[str, ...]:
    """The sources of /etc and /var that are there, and have no marker."""
    found = []
    for where, source in (("/etc", config.etc), ("/var", config.var)):
        known = here or source.startswith("/")
        if source == where or not known or not _source_exists(where, source, root):
            continue
        from immud.enable.seed import is_marked  # noqa: PLC0415 - most systems have no such source

        try:
            if not is_marked(source, root):
                found.append(source)
        except OSError:
            # Not a file system we can mount: boot would refuse it too.
            found.append(source)
    return tuple(found)
