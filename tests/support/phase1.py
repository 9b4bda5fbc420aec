"""A stock system in a namespace of its own, for phase 1 to lay out."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from immud import private_mounts
from immud.early import elsewhere, mountinfo, plan
from immud.early.plan import BootPlan, Row
from immud.lease import namespace
from tests.support.namespaces import enter_root, namespaced
from tests.support.stock import stock_root

# What phase 1 loads late: below the new root there is nothing to load it from.
LOADED_LATE = elsewhere.LOADED, namespace, private_mounts


SILVERBLUE = (
    Row("/home", "var/home"),
    Row("/opt", "var/opt"),
    Row("/srv", "var/srv"),
    Row("/root", "var/roothome", mode=0o700),
    Row("/usr/local", "../var/usrlocal", inside=("bin", "etc")),
    Row("/mnt", "var/mnt"),
    Row("/media", "run/media"),
    Row("/tmp", "sysroot/tmp", mode=0o1777),
)


def booted(
    tmp_path: Path,
    check: Callable[[], None],
    prepare: Callable[[], None] = lambda: None,
    boot_plan: BootPlan | None = None,
) -> None:
    """Lay out a stock system in a namespace of its own, then run `check` in it."""
    chosen = boot_plan or BootPlan(rows=SILVERBLUE)

    def work() -> None:
        enter_root(str(stock_root(tmp_path)))
        prepare()
        Path(plan.PATH).write_bytes(plan.encode(chosen))
        check()

    namespaced(work)


def refuses(path: str, number: int = errno.EROFS) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    except OSError as error:
        if error.errno != number:
            raise
        return True
    return False


def table() -> list[tuple[str, str, bool]]:
    return [(m.target, m.root, m.read_only) for m in mountinfo.read()]
