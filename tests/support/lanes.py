"""pytest plugin: how tests are handed out when pytest-xdist runs several at a time.

One worker has the virtual machines, of which there is one at a time, from the first to the last;
the other works through everything else meanwhile. Each is a process of its own; what they share
is the cache, which has locks.
"""

from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support import stages
from tests.support.limits import tier_of


class _Lanes(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        tier = tier_of(Path(file))
        return tier if tier == "vm" else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Lanes:
    return _Lanes(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker: the stages it went through are summed up by the process that started it."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["stages"] = stages.taken


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    stages.taken += [tuple(each) for each in getattr(node, "workeroutput", {}).get("stages", [])]
