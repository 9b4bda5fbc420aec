"""From a configuration to the boot plan, and the plan onto the disk.

Phase 1 calls `compile_now` when the configuration is no longer the one the plan was
made from; hence as little as can be is imported here and by what this imports.
"""

import fcntl
import os
import sys
from contextlib import suppress

from immud.config.load import load
from immud.early.attempts import PATH as COUNT
from immud.early.plan import PATH, BootPlan, encode
from immud.errors import ConfigError
from immud.model import Config


def compile_plan(config: Config) -> BootPlan:
    """The plan of the next boot. Pure."""
    return BootPlan(
        usr=config.usr,
        etc=config.etc,
        var=config.var,
        rows=config.rows,
        root=config.root_readonly,
        wait=config.wait,
        hold=config.hold_back,
        logins=bool(config.tombs),
        tombs=tuple(
            place for t in config.tombs for place in (t.mount, *(where for _, where in t.binds))
        ),
        configs=config.files,
    )


def compile_now(root: str = "/") -> BootPlan:
    """The plan for the configuration as it is. Raises ConfigError."""
    return compile_plan(load(root))


def write_plan(plan: BootPlan, root: str = "/") -> bool:
    """Put `plan` where the next boot reads it; False if just that is there already.

    Whatever happens in between, the file is the old one or the new one: written beside
    it, flushed, renamed over it, and the rename flushed. Raises OSError.
    """
    data = encode(plan)
    directory, name = os.path.split(os.path.join(root, PATH[1:]))
    os.makedirs(directory, mode=0o755, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # One name for the new file, so that no interrupted run leaves more than one behind,
        # and a lock, so that two runs do not write to it at once.
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _content(name, fd) == data:
            return False
        _write(name + ".new", data, fd)
        os.rename(name + ".new", name, src_dir_fd=fd, dst_dir_fd=fd)
        os.fsync(fd)
    finally:
        os.close(fd)
    return True


def recompile(root: str = "/") -> None:
    """Bring the plan up to date, where there is one. Raises ConfigError and OSError."""
    if os.path.lexists(os.path.join(root, PATH[1:])):
        write_plan(compile_now(root), root)


def main() -> None:
    """`daemon compile`: after an upgrade or a downgrade, whose defaults may be others.

    Where that fails the old plan stays, and what the next boot makes of it is said.
    """
    try:
        recompile()
    except (ConfigError, OSError) as error:
        from immud.early.main import load  # noqa: PLC0415 - only here

        _, _, problems, _ = load()
        texts = [text for _, _, text, _ in problems]
        sys.exit(f"immud: {(texts or [f'{error}; the old boot plan stays'])[0]}")


def _content(name: str, dir_fd: int) -> bytes | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=dir_fd)
    except OSError:
        return None
    with open(fd, "rb") as file:
        return file.read()


def _write(name: str, data: bytes, dir_fd: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=dir_fd)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(name, flags, 0o644, dir_fd=dir_fd), "wb") as file:
        # Whatever the umask: everybody may read it, as the configuration.
        os.fchmod(file.fileno(), 0o644)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def remove_plan(root: str = "/") -> bool:
    """Remove the plan, what an interrupted write left and the count; False if there was none."""
    path = os.path.join(root, PATH[1:])
    removed = False
    for name in (path + ".new", os.path.join(root, COUNT[1:]), path):
        with suppress(FileNotFoundError):
            os.unlink(name)
            removed = name == path
    return removed
