"""`immud watch`: every change the daemon tells of, as it happens."""

import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from immud.cli.bus import talk
from immud.cli.render import Style, problem_lines, user, visible
from immud.cli.status import problems_of

if TYPE_CHECKING:
    from immud.bus.adapter import Signal
    from immud.client import Client

MANAGER = "org.immud1.Manager"
# What another line of the same moment says in words: a state, a finding.
_IMPLIED = frozenset({"Options", "ReadOnly", "UsrReadOnly", "RootReadOnly", "Integrity"})
_REMOVED = {"finding": "no longer so", "lease": "ended"}


def watch(arguments: Namespace) -> int:
    """Print changes until interrupted. Raises Unreachable where there is no daemon."""
    import json  # noqa: PLC0415 - only here

    style = Style.of(sys.stdout)

    def show(event: dict[str, Any]) -> None:
        if arguments.json:
            stamped = {"realtime_usec": time.time_ns() // 1000, **event}
            print(json.dumps(stamped), flush=True)
            return
        now = time.strftime("%H:%M:%S")
        for line in sentences(event, style):
            print(f"{style.paint(now, 'dim')}  {line}", flush=True)

    async def run(client: "Client") -> None:
        signals = await client.subscribe()
        # Not before: a change in between would be missed.
        state = await client.get_all()
        now = {name: state[name] for name in ("State", "Problems")}
        show(change("/org/immud1", MANAGER, now))
        async for signal in signals:
            for event in events(signal):
                show(event)

    talk(run)
    return 0


def change(path: str, interface: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Properties that have new values."""
    return {"event": "changed", "object": path, "interface": interface, "values": dict(values)}


def events(signal: "Signal") -> Iterator[dict[str, Any]]:
    """What a signal tells, for programs; names are those of the bus. Pure."""
    body = signal.body
    if signal.member == "PropertiesChanged":
        yield change(signal.path, body[0], body[1])
    elif signal.member == "InterfacesAdded":
        for interface, values in body[1].items():
            yield {**change(body[0], interface, values), "event": "added"}
    elif signal.member == "InterfacesRemoved":
        for interface in body[1]:
            yield {"event": "removed", "object": body[0], "interface": interface}
    elif signal.member == "JobRemoved":
        yield {"event": "job-done", "object": body[1], "result": body[2]}
    elif signal.member == "NameOwnerChanged":
        yield {"event": "daemon-started" if body[2] else "daemon-stopped"}


def sentences(event: Mapping[str, Any], style: Style) -> Iterator[str]:
    """An event as lines for people. Pure."""
    about = label(event.get("object", ""))
    match event["event"]:
        case "daemon-started" | "daemon-stopped":
            yield "the daemon has " + event["event"].removeprefix("daemon-")
        case "job-done":
            yield f"{about}: {style.word(event['result'])}"
        case "removed":
            # A job has had its result by then.
            if event["interface"].startswith("org.immud1.") and not about.startswith("job "):
                yield f"{about}: {_REMOVED.get(about.partition(' ')[0], 'gone')}"
        case "added":
            values = event["values"]
            if event["interface"] == "org.immud1.Job":
                yield f"{about}: {values['Operation']} {label(values['Object'])}"
            elif event["interface"] == "org.immud1.Lease":
                why = f": {visible(values['Why'])}" if values["Why"] else ""
                yield f"{about}: / and /usr are writable for {user(values['Who'])}{why}"
            elif event["interface"] == "org.immud1.Finding":
                yield f"{about}: {style.paint(visible(values['Text']), 'red')}"
            elif "State" in values:
                yield f"{about}: new, {style.word(values['State'])}"
        case "changed":
            values = dict(event["values"])
            if event["interface"] == "org.immud1.Job":
                values.pop("State", "")
            yield from _changed(about, values, style)


def _changed(about: str, values: Mapping[str, Any], style: Style) -> Iterator[str]:
    for name, value in values.items():
        if name in _IMPLIED:
            continue
        if name == "Problems":
            narrow = style._replace(width=style.width - 10)
            yield from problem_lines(problems_of(value), narrow)
        elif name == "State":
            yield f"{about}: {style.word(value)}"
        elif name == "Progress":
            if 0 <= value <= 1:
                yield f"{about}: {value:.0%}"
        elif isinstance(value, bool):
            yield f"{about}: {name} = {'yes' if value else 'no'}"
        elif name == "HomeTomb":
            yield f"{about}: {name} = {label(value) if value != '/' else 'none'}"
        elif isinstance(value, str) and value:
            yield f"{about}: {name} = {visible(value)}"


def label(path: str) -> str:
    """An object path as a person would say it."""
    from immud.bus.names import decode  # noqa: PLC0415 - only here

    kind, _, element = path.removeprefix("/org/immud1").strip("/").partition("/")
    if kind == "mount":
        # The element is a unit name, in which - stands for / and \x2d for -.
        unit = decode(element).strip("-")
        return "mount /" + unit.replace("-", "/").replace("\\x2d", "-")
    if not element:
        return "immud"
    return f"{kind} {visible(decode(element))}"
