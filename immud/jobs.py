"""Long operations: each one a task, each one visible on the bus while it runs.

A job's view is a frozen snapshot, replaced as the job goes on. `changed` is
called after each replacement, and after a job came or went, always on the event
loop and never from within the work itself being half-way through a step: so a
subscriber that compares `running` with what it saw last misses no job, however
short.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from immud.errors import Cancelled, ImmudError
from immud.model import JobResult, JobState, JobView
from immud.service import Changed

Work = Callable[["RunningJob"], Awaitable[None]]


class RunningJob:
    """One operation under way; implements `immud.service.Job`."""

    def __init__(self, view: JobView, work: Work, jobs: "Jobs") -> None:
        self._view = view
        self._jobs = jobs
        loop = asyncio.get_running_loop()
        self._finished: asyncio.Future[JobView] = loop.create_future()
        # The loop itself keeps only weak references to tasks: this one is the strong one.
        self._task = loop.create_task(self._run(work), name=f"job {view.id}: {view.operation}")
        # A task cancelled before its first step never enters `_run`, so the end is
        # noticed here and not in a `finally` there.
        self._task.add_done_callback(self._end)

    @property
    def view(self) -> JobView:
        return self._view

    def progress(self, fraction: float) -> None:
        """How far the work has come, from 0.0 to 1.0; call it as often as you like."""
        self._update(progress=min(max(fraction, 0.0), 1.0))

    def cancel(self) -> None:
        """Ask the work to stop. It may clean up first, and may finish all the same."""
        self._task.cancel()

    async def wait(self) -> JobView:
        """The final view. Cancelling a waiter does not touch the job."""
        return await asyncio.shield(self._finished)

    async def _run(self, work: Work) -> None:
        self._update(state=JobState.RUNNING)
        await work(self)

    def _update(self, **fields: Any) -> None:
        view = replace(self._view, **fields)
        if view != self._view and not self._finished.done():
            self._view = view
            self._jobs.changed()

    def _end(self, task: asyncio.Task[None]) -> None:
        error: BaseException | None
        if task.cancelled():
            error = Cancelled(f"{self._view.operation} was cancelled.")
        else:
            error = task.exception()
        if error is None:
            ended: dict[str, Any] = {"result": JobResult.DONE, "progress": 1.0}
        elif isinstance(error, Cancelled):
            ended = {"result": JobResult.CANCELLED, "error": str(error)}
        elif isinstance(error, ImmudError):
            ended = {"result": JobResult.FAILED, "error": str(error)}
        else:
            # A defect of ours: the traceback goes to the journal, a sentence to the caller.
            task.get_loop().call_exception_handler(
                {"message": f"defect in {task.get_name()}", "exception": error, "task": task}
            )
            ended = {
                "result": JobResult.FAILED,
                "error": f"{self._view.operation} failed unexpectedly "
                f"({type(error).__name__}: {error}); the journal has the details.",
            }
        if error is not None:
            known = error if isinstance(error, ImmudError) else ImmudError()
            ended["error_name"] = known.bus_name
        self._view = replace(self._view, state=JobState.DONE, **ended)
        self._finished.set_result(self._view)
        self._jobs.remove(self)


class Jobs:
    """The jobs that are queued or running, by id. Ids start at 1 and are not used again."""

    def __init__(self, changed: Changed) -> None:
        self.changed = changed
        self._last = 0
        self._running: dict[int, RunningJob] = {}
        self.running: Mapping[int, RunningJob] = MappingProxyType(self._running)

    def start(self, operation: str, object_path: str, uid: int, work: Work) -> RunningJob:
        """Start `work` on the running loop.

        ImmudError from it makes the job `failed` with that text, CancelledError
        `cancelled`; anything else is `failed` too and reported to the loop's
        exception handler.
        """
        self._last += 1
        view = JobView(self._last, operation, object_path, started_by_uid=uid)
        job = RunningJob(view, work, self)
        self._running[view.id] = job
        self.changed()
        return job

    def remove(self, job: RunningJob) -> None:
        """A job ended; it leaves `running`, and who holds it can still read its view."""
        del self._running[job.view.id]
        self.changed()

    async def close(self) -> None:
        """Cancel what runs and wait until it has cleaned up."""
        jobs = tuple(self._running.values())
        for job in jobs:
            job.cancel()
        for job in jobs:
            await job.wait()
