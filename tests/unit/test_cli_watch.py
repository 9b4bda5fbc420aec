"""What `immud watch` makes of the daemon's signals."""

from types import SimpleNamespace
from typing import Any

import pytest

from immud.bus.names import finding_path, mount_path, tomb_path
from immud.cli.render import Style
from immud.cli.watch import events, label, sentences


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/org/immud1", "immud"),
        (mount_path("/"), "mount /"),
        (mount_path("/usr"), "mount /usr"),
        (mount_path("/var/home"), "mount /var/home"),
        (mount_path("/var/my-home"), "mount /var/my-home"),
        (tomb_path("home"), "tomb home"),
        (tomb_path("a-b_c"), "tomb a-b_c"),
        ("/org/immud1/job/10", "job 10"),
    ],
)
def test_an_object_as_a_person_would_say_it(path: str, said: str) -> None:
    assert label(path) == said


def told(member: str, path: str, *body: Any) -> tuple[list[str], list[str]]:
    signal: Any = SimpleNamespace(member=member, path=path, body=list(body))
    found = list(events(signal))
    lines = [line for event in found for line in sentences(event, Style())]
    return [event["event"] for event in found], lines


JOB = "/org/immud1/job/1"
TOMB = "org.immud1.Tomb"


@pytest.mark.parametrize(
    ("signal", "names", "lines"),
    [
        (
            ("PropertiesChanged", tomb_path("home"), TOMB, {"State": "lost", "Device": ""}, []),
            ["changed"],
            ["tomb home: lost"],
        ),
        (
            ("PropertiesChanged", JOB, "org.immud1.Job", {"Progress": -1.0}, []),
            ["changed"],
            [],
        ),
        (
            ("PropertiesChanged", JOB, "org.immud1.Job", {"Progress": 0.25}, []),
            ["changed"],
            ["job 1: 25%"],
        ),
        (
            ("PropertiesChanged", "/org/immud1", "org.immud1.Manager", {"HomeTomb": "/"}, []),
            ["changed"],
            ["immud: HomeTomb = none"],
        ),
        (
            (
                "InterfacesAdded",
                "/org/immud1",
                mount_path("/usr"),
                {"org.immud1.Mount": {"State": "mounted"}, "org.freedesktop.DBus.Peer": {}},
            ),
            ["added", "added"],
            ["mount /usr: new, mounted"],
        ),
        (
            (
                "InterfacesRemoved",
                "/org/immud1",
                tomb_path("x"),
                [TOMB, "org.freedesktop.DBus.Peer"],
            ),
            ["removed", "removed"],
            ["tomb x: gone"],
        ),
        (
            (
                "InterfacesAdded",
                "/org/immud1",
                finding_path(3),
                {"org.immud1.Finding": {"Text": "/usr has become writable", "Pid": 0}},
            ),
            ["added"],
            ["finding 3: /usr has become writable"],
        ),
        (
            ("InterfacesRemoved", "/org/immud1", finding_path(3), ["org.immud1.Finding"]),
            ["removed"],
            ["finding 3: no longer so"],
        ),
        (
            (
                "PropertiesChanged",
                mount_path("/usr"),
                "org.immud1.Mount",
                {"State": "writable", "ReadOnly": False, "Options": "rw,relatime"},
                [],
            ),
            ["changed"],
            ["mount /usr: writable"],
        ),
        (("JobRemoved", "/org/immud1", 1, JOB, "failed"), ["job-done"], ["job 1: failed"]),
        (("JobNew", "/org/immud1", 1, JOB), [], []),
        (
            ("NameOwnerChanged", "/", "org.immud1", ":1.2", ""),
            ["daemon-stopped"],
            ["the daemon has stopped"],
        ),
        (
            ("NameOwnerChanged", "/", "org.immud1", "", ":1.3"),
            ["daemon-started"],
            ["the daemon has started"],
        ),
    ],
)
def test_signals(signal: tuple[Any, ...], names: list[str], lines: list[str]) -> None:
    assert told(*signal) == (names, lines)
