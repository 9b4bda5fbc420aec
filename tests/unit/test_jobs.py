"""Jobs: one task each, frozen views, nobody misses one that is short."""

import asyncio
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from immud.errors import Busy, Cancelled
from immud.jobs import Jobs, RunningJob
from immud.model import JobResult, JobState, JobView


class Watcher:
    """Sees what a bus server would: the difference between two looks at `running`."""

    def __init__(self) -> None:
        self.jobs = Jobs(self.look)
        self.known: dict[int, RunningJob] = {}
        self.log: list[tuple[str, int]] = []
        self.views: list[JobView] = []

    def look(self) -> None:
        now = dict(self.jobs.running)
        self.log += [("new", number) for number in now.keys() - self.known.keys()]
        self.log += [("removed", number) for number in self.known.keys() - now.keys()]
        self.views += [job.view for job in now.values()]
        self.known = now


async def test_a_short_job_is_seen_coming_and_going() -> None:
    watcher = Watcher()

    async def work(job: RunningJob) -> None:
        pass

    job = watcher.jobs.start("open", "/org/immud1/tomb/home", 1000, work)
    assert job.view == JobView(1, "open", "/org/immud1/tomb/home", started_by_uid=1000)
    assert dict(watcher.jobs.running) == {1: job}
    view = await job.wait()
    assert (view.state, view.result, view.progress) == (JobState.DONE, JobResult.DONE, 1.0)
    assert view.error == view.error_name == ""
    assert watcher.log == [("new", 1), ("removed", 1)]
    assert not watcher.jobs.running
    assert (await watcher.jobs.start("open", "/", 0, work).wait()).id == 2


async def test_progress_is_clamped_and_published_on_change_only() -> None:
    watcher = Watcher()

    async def work(job: RunningJob) -> None:
        for fraction in (0.25, 0.25, 7.0, -3.0):
            job.progress(fraction)

    before = watcher.jobs.start("close", "/", 0, work)
    first = before.view
    await before.wait()
    assert [view.progress for view in watcher.views] == [-1.0, -1.0, 0.25, 1.0, 0.0]
    assert first.state == JobState.QUEUED, "a view taken earlier does not change"
    with pytest.raises(FrozenInstanceError):
        first.progress = 1.0  # type: ignore[misc]


async def test_errors_become_results_with_their_text_and_name() -> None:
    jobs = Jobs(lambda: None)

    async def busy(job: RunningJob) -> None:
        raise Busy("pid 12 (bash) is in the way.")

    view = await jobs.start("close", "/", 0, busy).wait()
    assert (view.result, view.error) == (JobResult.FAILED, "pid 12 (bash) is in the way.")
    assert view.error_name == "org.immud1.Error.Busy"

    async def gives_up(job: RunningJob) -> None:
        raise Cancelled("the person closed the prompt.")

    view = await jobs.start("open", "/", 0, gives_up).wait()
    assert (view.result, view.error_name) == (JobResult.CANCELLED, "org.immud1.Error.Cancelled")


async def test_a_defect_is_reported_to_the_loop_and_fails_the_job() -> None:
    jobs = Jobs(lambda: None)
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))

    async def defect(job: RunningJob) -> None:
        raise KeyError("uuid")

    view = await jobs.start("open", "/", 0, defect).wait()
    assert view.result == JobResult.FAILED
    assert view.error_name == "org.immud1.Error.Failed"
    assert "KeyError" in view.error
    assert isinstance(reported[0]["exception"], KeyError)


@pytest.mark.parametrize("started", [False, True])
async def test_cancel_before_and_after_the_first_step(started: bool) -> None:
    watcher = Watcher()
    cleaned: list[str] = []

    async def work(job: RunningJob) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned.append("yes")

    job = watcher.jobs.start("open", "/", 0, work)
    if started:
        await asyncio.sleep(0)
    job.cancel()
    view = await job.wait()
    assert (view.state, view.result) == (JobState.DONE, JobResult.CANCELLED)
    assert cleaned == (["yes"] if started else [])
    assert watcher.log == [("new", 1), ("removed", 1)]


async def test_work_may_finish_all_the_same_after_cancel() -> None:
    async def stubborn(job: RunningJob) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            job.progress(0.5)

    job = Jobs(lambda: None).start("close", "/", 0, stubborn)
    await asyncio.sleep(0)
    job.cancel()
    assert (await job.wait()).result == JobResult.DONE


async def test_a_cancelled_waiter_leaves_the_job_alone() -> None:
    release = asyncio.Event()

    async def work(job: RunningJob) -> None:
        await release.wait()

    jobs = Jobs(lambda: None)
    job = jobs.start("open", "/", 0, work)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(job.wait(), 0.01)
    assert job.view.state == JobState.RUNNING
    release.set()
    assert (await job.wait()).result == JobResult.DONE


async def test_close_cancels_and_waits_for_the_cleaning_up() -> None:
    jobs = Jobs(lambda: None)
    cleaned: list[int] = []

    async def work(job: RunningJob) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(job.view.id)

    for _ in range(3):
        jobs.start("open", "/", 0, work)
    await asyncio.sleep(0)
    await jobs.close()
    assert cleaned == [1, 2, 3]
    assert not jobs.running
