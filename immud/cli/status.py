"""`immud status`."""

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from immud.cli.bus import talk
from immud.cli.render import Snapshot, Style, problem_json, status_lines
from immud.early import facts
from immud.early.plan import PATH
from immud.errors import Unreachable
from immud.model import (
    LeaseView,
    LinkFact,
    ManagerState,
    MountFact,
    Problem,
    Severity,
    TombState,
    TombView,
)

if TYPE_CHECKING:
    from immud.client import Client, Objects


def status(arguments: Namespace) -> int:
    """Show the state of the whole."""
    if os.path.exists(facts.LATER) and not os.path.exists(facts.PATH):
        raise Unreachable(
            "immud is enabled and takes effect at the next boot. To see what it will do: immud plan"
        )
    try:
        snapshot, boot = talk(_ask)
    except Unreachable as error:
        if os.path.exists(PATH):
            raise
        raise Unreachable(
            "immud is not enabled on this system. Preview: immud plan. "
            "Turn it on: sudo immud enable"
        ) from error
    if arguments.json:
        import json  # noqa: PLC0415 - only here

        print(json.dumps(as_json(snapshot) | {"boot": boot}, indent=2))
        return 0
    for line in status_lines(snapshot, Style.of(sys.stdout)):
        print(line)
    return 0


async def _ask(client: "Client") -> tuple[Snapshot, dict[str, Any]]:
    # The links first: nobody hears of a change to one, so the daemon looks when asked.
    links = await client.links()
    manager = await client.get_all()
    return snapshot_of(manager, links, await client.objects()), manager["Boot"]


def snapshot_of(
    manager: Mapping[str, Any], links: Sequence[Sequence[str]], objects: "Objects"
) -> Snapshot:
    """What the bus said, as values. Pure."""
    interfaces = [inner for _, inner in sorted(objects.items())]
    mounts = [inner["org.immud1.Mount"] for inner in interfaces if "org.immud1.Mount" in inner]
    tombs = {
        path: _tomb(inner["org.immud1.Tomb"])
        for path, inner in sorted(objects.items())
        if "org.immud1.Tomb" in inner
    }
    home = tombs.get(manager["HomeTomb"])
    return Snapshot(
        version=manager["Version"],
        state=ManagerState(manager["State"]),
        usr_read_only=manager["UsrReadOnly"],
        root_read_only=manager["RootReadOnly"],
        home_tomb=home.name if home else "",
        problems=problems_of(manager["Problems"]),
        mounts=tuple(_mount(mount) for mount in sorted(mounts, key=lambda m: str(m["Where"]))),
        links=tuple(LinkFact(*link) for link in links),
        tombs=tuple(tombs.values()),
        leases=tuple(
            _lease(inner["org.immud1.Lease"]) for inner in interfaces if "org.immud1.Lease" in inner
        ),
    )


def problems_of(problems: Sequence[Sequence[Any]]) -> tuple[Problem, ...]:
    """The manager's Problems as values."""
    return tuple(
        Problem(Severity(severity), code, text, dict(data))
        for severity, code, text, data in problems
    )


def _mount(mount: Mapping[str, Any]) -> MountFact:
    return MountFact(
        where=mount["Where"],
        what=mount["What"],
        fstype=mount["FsType"],
        options=mount["Options"],
        read_only=mount["ReadOnly"],
        state=mount["State"],
    )


def _tomb(tomb: Mapping[str, Any]) -> TombView:
    return TombView(
        name=tomb["Name"],
        state=TombState(tomb["State"]),
        uuid=tomb["UUID"],
        label=tomb["Label"],
        device=tomb["Device"],
        mapper=tomb["Mapper"],
        mount_point=tomb["MountPoint"],
        auto_open=tomb["AutoOpen"],
        last_error=tomb["LastError"],
        absent=tomb["Absent"],
        fs_type=tomb["FsType"],
        read_only=tomb["ReadOnly"],
    )


def _lease(lease: Mapping[str, Any]) -> LeaseView:
    return LeaseView(
        id=lease["Id"],
        who=lease["Who"],
        why=lease["Why"],
        since=lease["Since"],
        unit=lease["Unit"],
        trial=lease["Trial"],
    )


def as_json(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot for programs; names as in the values of `immud.model`."""
    from dataclasses import asdict  # noqa: PLC0415 - only here

    return {
        **snapshot._asdict(),
        "problems": [problem_json(problem) for problem in snapshot.problems],
        "mounts": [asdict(mount) for mount in snapshot.mounts],
        "links": [asdict(link) for link in snapshot.links],
        "tombs": [asdict(tomb) for tomb in snapshot.tombs],
        "leases": [asdict(lease) for lease in snapshot.leases],
    }
