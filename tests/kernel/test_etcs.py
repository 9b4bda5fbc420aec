"""What is enabled and disabled where the /etc that is shown is not the only one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from immud.cli.enable import _take_back_each
from immud.early import kernel
from immud.enable import apt, etcs, seed
from immud.enable.links import follow
from tests.support.namespaces import enter_root, in_namespace

WRITTEN = (
    "systemd/system/local-fs.target.wants/immud.service",
    "systemd/system/dbus-org.immud1.service",
    "apt/apt.conf.d/90immud",
)


def system(root: Path) -> None:
    """A machine in small, as the root directory, with a second /etc."""
    assert seed.opened, "imported as long as it can be"
    kernel.mount("tmpfs", str(root), "tmpfs", 0)
    for etc in ("etc", "data/etc"):
        (root / etc / "apt/apt.conf.d").mkdir(parents=True)
        (root / etc / "systemd/system").mkdir(parents=True)
    for place in ("proc", "usr/local/sbin"):
        (root / place).mkdir(parents=True)
    enter_root(str(root))
    kernel.mount_setattr("/", set_=kernel.MOUNT_ATTR_RDONLY)


@contextmanager
def shown(etc: str) -> Iterator[None]:
    kernel.mount(etc, "/etc", None, kernel.MS_BIND)
    kernel.mount_setattr("/etc", clear=kernel.MOUNT_ATTR_RDONLY)
    yield
    kernel.umount2("/etc")


def enable(source: str) -> None:
    with etcs.others(source) as others:
        follow(others, enabled=True)
        apt.enable("lease", "/", others)


def written(etc: str) -> list[str]:
    return [name for name in WRITTEN if os.path.lexists(f"{etc}/{name}")]


@in_namespace
def test_one_etc_has_no_others(tmp_path: Path) -> None:
    system(tmp_path)
    with etcs.others("/etc") as others:
        assert others == []
    with shown("/etc"), etcs.others("/etc") as others:
        assert others == []


@in_namespace
def test_a_source_that_is_configured_for_the_next_boot(tmp_path: Path) -> None:
    system(tmp_path)
    with shown("/etc"):
        enable("/data/etc")
        assert written("/data/etc") == [*WRITTEN]
        _take_back_each("/data/etc", "/")
    assert written("/data/etc") == []


@in_namespace
@pytest.mark.parametrize("source", ["/etc", "/data/etc"])
def test_the_root_file_system_s_own_below_another(tmp_path: Path, source: str) -> None:
    """PID 1 begins with it at the next boot, whatever the source is by then."""
    system(tmp_path)
    with shown("/data/etc"):
        enable(source)
    assert written("/etc") == [*WRITTEN]
    assert apt.mode() == "lease"
    with shown("/data/etc"):
        _take_back_each(source, "/")
    assert written("/etc") == []


@in_namespace
def test_a_source_that_is_gone_keeps_nobody_from_disabling(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system(tmp_path)
    for source, why in (("LABEL=x", "LABEL=x is not there"), ("/x", "No such file or directory")):
        with shown("/data/etc"):
            enable("/etc")
            _take_back_each(source, "/")
        said = f"{source} could not be reached ({why}), so what immud wrote to the /etc there stays"
        assert said in capsys.readouterr().err
        assert written("/etc") == []
