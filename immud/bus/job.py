"""org.immud1.Job: a long operation, there as long as it runs."""

from collections.abc import Awaitable, Callable

from immud.bus.adapter import Call
from immud.bus.vtable import Emits, Interface, Method, Property
from immud.service import Job

NAME = "org.immud1.Job"


def interface(job: Job, may_cancel: Callable[[Call, Job], Awaitable[None]]) -> Interface:
    """`may_cancel` raises NotAuthorized where the caller may not."""

    async def cancel(call: Call) -> None:
        await may_cancel(call, job)
        job.cancel()

    return Interface(
        NAME,
        Method(
            "Cancel",
            cancel,
            doc="Ask the job to stop; it cleans up first. Who started it may, others ask polkit.",
        ),
        Property("Id", "u", lambda: job.view.id, emits=Emits.CONSTANT),
        Property(
            "Operation",
            "s",
            lambda: job.view.operation,
            emits=Emits.CONSTANT,
            doc="open, close, eject, purge (of a drive that was pulled), reconcile or reload.",
        ),
        Property(
            "Object",
            "o",
            lambda: job.view.object,
            emits=Emits.CONSTANT,
            doc="The object it is about.",
        ),
        Property("State", "s", lambda: job.view.state, doc="queued, running or done."),
        Property("Progress", "d", lambda: job.view.progress, doc="0.0 to 1.0; -1.0: unknown."),
        Property("StartedByUID", "u", lambda: job.view.started_by_uid, emits=Emits.CONSTANT),
        Property("Result", "s", lambda: job.view.result, doc="Empty, done, failed or cancelled."),
    )
