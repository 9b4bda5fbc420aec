"""pytest fixtures: images, and machines on them that are thrown away after the test.

Containers and virtual machines are off at first, so that a test can change the disk before the
first boot; `.boot()` turns them on.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

from tests.support import image, stages
from tests.support.container import Container
from tests.support.image import Image


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


def _only_root() -> None:
    assert os.geteuid() == 0, "machines need root: run tests/run as root"


@pytest.fixture(autouse=True, scope="session")
def _announce_stages(request: pytest.FixtureRequest) -> None:
    """Long parts are told on the terminal although pytest captures."""
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    capture = request.config.pluginmanager.get_plugin("capturemanager")

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
                parts = Path(report.nodeid.partition("::")[0]).parts
                tier = parts[1] if len(parts) > 1 else parts[0]
                count, seconds = spent.get(tier, (0, 0.0))
                spent[tier] = (count + (report.when == "call"), seconds + report.duration)
    terminalreporter.section("time")
    for tier, (count, seconds) in spent.items():
        terminalreporter.write_line(f"{seconds:8.1f} s  {tier}: {count} tests")
    for name, seconds in stages.taken:
        terminalreporter.write_line(f"{seconds:8.1f} s  of these: {name}")
