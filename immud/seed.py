"""Another place as this machine's /etc or /var: proved to be meant so, or prepared.

At boot a directory is taken for /etc or /var only with the marker file in it; an
empty one may be the mount point of a drive that is not there. `prepare` is what
`immud enable` does about that, while there is still somebody to tell.
"""

import os
import subprocess

from immud.early import kernel, sources
from immud.early.elsewhere import MARKER
from immud.early.plan import BootPlan
from immud.errors import ImmudError

# Of a fresh file system's own making, and nobody's data.
_NOTHING = {"lost+found"}


class NotPrepared(ImmudError):
    """A source holds no marker, and `--seed` was not given, or it is not empty."""

    name = "NotPrepared"


def prepare(plan: BootPlan, *, seed: bool) -> tuple[str, ...]:
    """Prove, or with `seed` prepare, the sources of /etc and /var; returns what was done.

    An empty source gets a copy of what is there now, machine-id and all, and the
    marker last, so that a copy that was cut off is not taken for a whole one; the
    next run of `--seed` continues it. Raises NotPrepared and OSError.
    """
    done = []
    for where, source in (("/etc", plan.etc), ("/var", plan.var)):
        if source == where:
            continue
        status = _in_child(where, source, seed)
        if status == _COPIED:
            done.append(f"copied {where} to {source}")
        elif status == _UNMARKED:
            raise NotPrepared(
                f"{source} is to be {where}, and has no {MARKER} file to say so; "
                f"'immud enable --seed' copies {where} there and marks it"
            )
        elif status == _TAKEN:
            raise NotPrepared(
                f"{source} holds something else, so nothing was copied to it; empty it, "
                f"or, if it is meant to be {where} as it is, make a file {MARKER} in it"
            )
        elif status != _MARKED:
            raise NotPrepared(f"{source} could not be prepared to be {where}; see above for why")
    return tuple(done)


_MARKED, _COPIED, _UNMARKED, _TAKEN, _BROKEN = range(5)
# There while a copy is under way; a directory with it is ours to go on with.
_HALF = ".immud.half"


def _in_child(where: str, source: str, seed: bool) -> int:
    """Look at the source in a mount namespace that ends with the child: nobody else sees it."""
    pid = os.fork()
    if pid == 0:
        status = _BROKEN
        try:
            kernel.unshare()
            kernel.mount_setattr("/", propagation=kernel.MS_PRIVATE, recursive=True)
            status = _look(where, source, seed)
        except OSError as error:
            os.write(2, f"immud: {source}: {error.strerror or error}\n".encode())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _look(where: str, source: str, seed: bool) -> int:
    fd = sources.tree(source, readonly=False)
    place = f"/proc/self/fd/{fd}"
    names = set(os.listdir(place)) - _NOTHING
    if MARKER in names:
        return _MARKED
    if not seed:
        return _UNMARKED
    if names and _HALF not in names:
        return _TAKEN
    os.close(os.open(f"{place}/{_HALF}", os.O_WRONLY | os.O_CREAT, 0o600))
    copy = ["cp", "--archive", "--one-file-system", f"{where}/.", f"{place}/"]
    if subprocess.run(copy, check=False, pass_fds=(fd,)).returncode:
        return _BROKEN
    os.sync()
    os.close(os.open(f"{place}/{MARKER}", os.O_WRONLY | os.O_CREAT, 0o644))
    os.unlink(f"{place}/{_HALF}")
    os.sync()
    return _COPIED
