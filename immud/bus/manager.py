"""org.immud1.Manager: the whole."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import immud
from immud.bus import finding, names, options, polkit
from immud.bus.adapter import Call, variant
from immud.bus.vtable import Emits, Interface, Method, Property, Signal, no_arguments
from immud.errors import NoSuchTomb
from immud.service import Job, Service

NAME = "org.immud1.Manager"


class Published(Protocol):
    """What the manager needs of the objects around it."""

    def started(self, job: Job) -> str:
        """Publish a job and return its path."""
        ...

    async def wait_for_job(self, path: str, timeout_us: int) -> str: ...


def interface(service: Service, published: Published) -> Interface:
    """The interface of the root object."""

    def list_mounts() -> list[Any]:
        return [
            (fact.where, fact.what, fact.state, names.mount_path(fact.where))
            for fact in service.mounts()
        ]

    def list_links() -> list[Any]:
        return [(link.path, link.target, link.state, link.kind) for link in service.links()]

    def list_tombs() -> list[Any]:
        views = [tomb.view for tomb in service.tombs().values()]
        return [
            (view.name, view.state, view.mount_point, names.tomb_path(view.name)) for view in views
        ]

    def list_leases() -> list[Any]:
        return [
            (names.lease_path(id), lease.who, lease.why, lease.since)
            for id, lease in service.leases().items()
        ]

    def get_tomb(call: Call, name: str) -> str:
        if name not in service.tombs():
            known = ", ".join(sorted(service.tombs()))
            make = "there is none; to make one: immud tomb create DEVICE"
            other = f"configured: {known}" if known else make
            raise NoSuchTomb(f"No tomb {name!r} is configured; {other}.")
        return names.tomb_path(name)

    def list_findings() -> list[Any]:
        return [
            (names.finding_path(found.id), found.kind, found.path, found.text)
            for found in service.findings().values()
        ]

    async def verify(call: Call, given: Mapping[str, Any]) -> list[Any]:
        options.parse(given, {})
        await service.verify()
        return [finding.properties(found) for found in service.findings().values()]

    def job_method(name: str, start: Callable[[int, Mapping[str, Any]], Job], doc: str) -> Method:
        def function(call: Call, given: Mapping[str, Any]) -> str:
            return published.started(start(call.uid, options.parse(given, {})))

        return Method(
            name,
            function,
            takes=("a{sv} options",),
            gives=("o job",),
            action=polkit.MANAGE_SYSTEM,
            doc=doc,
        )

    async def wait_for_job(call: Call, path: str, timeout_us: int) -> str:
        if not call.wants_reply:
            return ""
        return await published.wait_for_job(path, timeout_us)

    return Interface(
        NAME,
        Method(
            "ListMounts",
            no_arguments(list_mounts),
            gives=("a(ssso) mounts",),
            doc="Where, what, state and object of each mount immud is responsible for.",
        ),
        Method(
            "ListLinks",
            no_arguments(list_links),
            gives=("a(ssss) links",),
            doc="Path, target, state and kind of each row of the layout.",
        ),
        Method(
            "ListTombs",
            no_arguments(list_tombs),
            gives=("a(ssso) tombs",),
            doc="Name, state, mount point and object of each configured tomb.",
        ),
        Method(
            "ListLeases",
            no_arguments(list_leases),
            gives=("a(oust) leases",),
            doc="Object, user id, reason and beginning (CLOCK_REALTIME, microseconds) of each.",
        ),
        Method(
            "GetTomb", get_tomb, takes=("s name",), gives=("o tomb",), doc="The object of a tomb."
        ),
        job_method("Reconcile", service.reconcile, "Put right what is not as configured."),
        job_method("Reload", service.reload, "Read the configuration again."),
        Method(
            "WaitForJob",
            wait_for_job,
            takes=("o job", "t timeout_us"),
            gives=("s result",),
            doc="Wait for a job's end, at most so many microseconds (0: indefinitely). Returns its "
            "result; the error of one that failed comes as the error of this call.",
        ),
        Method(
            "ListFindings",
            no_arguments(list_findings),
            gives=("a(osss) findings",),
            doc="Object, kind, path and sentence of each finding of the tripwire.",
        ),
        Method(
            "Verify",
            verify,
            takes=("a{sv} options",),
            gives=("aa{sv} findings",),
            doc="Look at everything, also at superblocks and other mount namespaces, which notify "
            "nobody. Returns all findings, with their properties; an error where that could not "
            "be done.",
        ),
        Signal("FindingRaised", "u id", "o finding", "s kind", "s path", "s text"),
        Signal("FindingCleared", "u id", "o finding", "s kind", "s path", "s text"),
        Signal("JobNew", "u id", "o job"),
        Signal("JobRemoved", "u id", "o job", "s result", doc="done, failed or cancelled."),
        Property("Version", "s", lambda: immud.__version__, emits=Emits.CONSTANT),
        Property(
            "State",
            "s",
            service.state,
            doc="running, degraded, stopping or off. It is never starting: there is nobody on the "
            "bus before the layout is in place.",
        ),
        Property(
            "Problems",
            "a(sssa{sv})",
            lambda: [
                (p.severity, p.code, p.text, {key: variant("s", p.data[key]) for key in p.data})
                for p in service.problems()
            ],
            doc="Severity (notice, warning, error), code, text and data of each.",
        ),
        Property(
            "Boot",
            "a{sv}",
            lambda: {name: fact(value) for name, value in service.boot().items()},
            doc="Facts of this boot.",
        ),
        Property("UsrReadOnly", "b", service.usr_read_only, doc="Whether /usr is read-only."),
        Property("RootReadOnly", "b", service.root_read_only, doc="Whether / is read-only."),
        Property(
            "HomeTomb",
            "o",
            lambda: names.tomb_path(name) if (name := service.home_tomb()) else names.NONE,
            doc="The tomb that is open at /var/home; / for none.",
        ),
        Property(
            "Integrity",
            "s",
            service.integrity,
            doc="intact; violated, while there are findings; unknown in a boot without a layout.",
        ),
        Property("NFindings", "u", lambda: len(service.findings()), doc="How many there are."),
        Property(
            "NLeases", "u", lambda: len(service.leases()), doc="How many can write to / and /usr."
        ),
        Property("NJobs", "u", lambda: len(service.jobs()), doc="How many jobs there are."),
        Property(
            "Timestamps",
            "a{st}",
            lambda: dict(service.timestamps()),
            doc="CLOCK_MONOTONIC microseconds.",
        ),
    )


def fact(value: Any) -> Any:
    """A fact of the boot with the D-Bus type it has in Python."""
    if isinstance(value, bool):
        return variant("b", value)
    if isinstance(value, int):
        return variant("t" if value >= 0 else "x", value)
    if isinstance(value, list | tuple):
        return variant("as", [str(item) for item in value])
    return variant("s", str(value))
