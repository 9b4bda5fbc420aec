"""pytest fixtures: images, and machines on them that are thrown away after the test.

Containers and virtual machines are off at first, so that a test can change the disk before the
first boot; `.boot()` turns them on.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

from tests.support import cache, image, machines, stages
from tests.support.container import Container
from tests.support.drive import Drive, luks
from tests.support.image import Image
from tests.support.limits import tier_of
from tests.support.machines import HOME_UUID
from tests.support.vm import VM, booted


@pytest.fixture(scope="session")
def stock_image() -> Image:
    """Debian 13 as an installer leaves it, without immud (see `tests.support.image.base`)."""
    _only_root()
    return image.base("trixie")


@pytest.fixture(scope="session")
def installed_image() -> Image:
    """Debian 13 with the package of this checkout installed, neither adopted nor enabled."""
    _only_root()
    return image.installed("trixie")


@pytest.fixture(scope="session")
def adopted_image(installed_image: Image) -> Image:
    """`installed_image`, adopted and enabled in a booted system: immutable from its next boot."""
    return machines.adopted()


@pytest.fixture(scope="session")
def tomb_image(adopted_image: Image) -> Image:
    """`adopted_image` with the tomb of `home_drive` configured, by its LUKS UUID and a key file."""
    return machines.with_tomb()


@pytest.fixture
def usr_image(tomb_image: Image, tmp_path: Path) -> Path:
    """An erofs image of that machine's own /usr; see `machines.usr_image`."""
    return machines.usr_image(tomb_image, tmp_path / "usr.erofs")


@pytest.fixture
def stock_container(stock_image: Image) -> Iterator[Container]:
    """A container, off, on a copy of `stock_image`'s disk."""
    with Container(stock_image) as container:
        yield container


@pytest.fixture
def container(installed_image: Image) -> Iterator[Container]:
    """A container, off, on a copy of `installed_image`'s disk."""
    with Container(installed_image) as container:
        yield container


@pytest.fixture
def adopted_container(adopted_image: Image) -> Iterator[Container]:
    """A container, off, on a copy of `adopted_image`'s disk."""
    with Container(adopted_image) as container:
        yield container


@pytest.fixture
def drives(tmp_path: Path) -> Callable[..., Drive]:
    """Makes a drive for this test: `drives(**options)`, with those of `drive.luks`."""
    numbers = itertools.count(1)

    def make(**options: Any) -> Drive:
        number = next(numbers)
        options.setdefault("serial", f"TOMB{number:04}")
        return luks(tmp_path / f"drive-{number}", **options)

    return make


@pytest.fixture
def home_drive(drives: Callable[..., Drive]) -> Drive:
    """The drive that `tomb_image` has as [tomb.home], with alice's home on it."""
    return drives(uuid=HOME_UUID)


@pytest.fixture
def installed_vm(installed_image: Image) -> Iterator[VM]:
    """A virtual machine, running: `installed_image`, booted, as it was saved then."""
    with VM(booted(installed_image, "installed-trixie")) as machine:
        machine.restore()
        yield machine


@pytest.fixture
def vm(tomb_image: Image) -> Iterator[VM]:
    """A virtual machine, running: immutable, adopted, with a tomb configured and not there."""
    with VM(booted(tomb_image, "tomb-trixie")) as machine:
        machine.restore()
        yield machine


@pytest.fixture
def bookworm_vm() -> Iterator[VM]:
    """Debian 12 with the package installed, neither adopted nor enabled, off."""
    _only_root()
    with VM(image.installed("bookworm")) as machine:
        yield machine


def _only_root() -> None:
    assert os.geteuid() == 0, "machines need root: run tests/run as root"
    cache.sweep()


@pytest.fixture(autouse=True)
def _in_turn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where tests run beside each other, those with a virtual machine do not.

    It takes all CPUs, and an emulated one that is preempted for longer than a moment may run
    instructions that another one has changed since (QEMU before 8.1): the guest's kernel oopses.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    alone = tier_of(request.path) == "vm"
    with cache.locked("beside", "a virtual machine runs alone", shared=not alone):
        yield


@pytest.fixture(autouse=True, scope="session")
def _announce_stages(request: pytest.FixtureRequest) -> None:
    """Long parts are told on the terminal although pytest captures."""
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    assert capture, "pytest runs with a capture manager"
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker of pytest-xdist has no terminal
        stages.announce = lambda _text: None
        return

    def announce(text: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(text)

    stages.announce = announce


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Where the time went: by tier, and the parts that were built."""
    spent: dict[str, tuple[int, float]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                tier = tier_of(Path(report.nodeid.partition("::")[0]))
                count, seconds = spent.get(tier, (0, 0.0))
                spent[tier] = (count + (report.when == "call"), seconds + report.duration)
    terminalreporter.section("time")
    for tier, (count, seconds) in spent.items():
        terminalreporter.write_line(f"{seconds:8.1f} s  {tier}: {count} tests")
    for name, seconds in stages.taken:
        terminalreporter.write_line(f"{seconds:8.1f} s  of these: {name}")
