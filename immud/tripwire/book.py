"""What has been found and not been mended: numbers, times, and a copy that outlives a restart.

The copy, in /run/immud, is not what is believed: it only says since when something has been
so, and under which number it was told.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace

from immud.early.facts import DIRECTORY
from immud.early.plan import records, unescape
from immud.model import Breach, Finding
from immud.tripwire.rule import Broken

PATH = DIRECTORY + "/findings"

Key = tuple[Breach, str, int]

_TEXT = {
    Breach.WRITABLE: "{path} has become writable",
    Breach.UNMOUNTED: "{path} is not mounted any more",
    Breach.OVERMOUNTED: "Something is mounted over {path}: {actual}",
    Breach.SUPERBLOCK: "The file system at {path} was switched over: it is {actual}, and was "
    "{expected} at boot",
    Breach.LINK: "{path} is {actual}, and was {expected} at boot",
    Breach.NEW_MOUNT: "A writable mount has appeared at {path}: {actual}",
    Breach.WAY_IN: "{path} shows a protected tree writable: {actual}",
    Breach.TOMB: "The tomb's mount at {path} lacks protection: {actual}",
}


def sentence(broken: Broken) -> str:
    """What a person reads."""
    text = _TEXT[broken.kind].format(
        path=broken.path,
        actual=broken.actual.removeprefix("file system "),
        expected=broken.expected.removeprefix("file system "),
    )
    return f"{text}, in mount namespace {broken.namespace}" if broken.namespace else text


class Book:
    """The findings by number. `who` adds to a new one what is known of its author."""

    def __init__(self, path: str = PATH) -> None:
        self._path = path
        self.findings: dict[int, Finding] = {}
        self._last = 0
        self._load()

    def update(
        self,
        seen: Iterable[Broken],
        *,
        realtime: int,
        monotonic: int,
        who: Callable[[Finding], Finding] = lambda finding: finding,
        about: Callable[[Finding], bool] = lambda finding: True,
    ) -> tuple[list[Finding], list[Finding]]:
        """Take in what is seen now; returns what is new and what is mended.

        `about` says of which findings `seen` would know if they still were so.
        """
        now = {(broken.kind, broken.path, broken.namespace): broken for broken in seen}
        known = {_key(finding): finding for finding in self.findings.values()}
        cleared = [finding for key, finding in known.items() if key not in now and about(finding)]
        for finding in cleared:
            del self.findings[finding.id]
        raised = []
        for key, broken in now.items():
            text = sentence(broken)
            if old := known.get(key):
                self.findings[old.id] = replace(
                    old, expected=broken.expected, actual=broken.actual, text=text
                )
                continue
            self._last += 1
            finding = who(
                Finding(
                    self._last,
                    broken.kind,
                    broken.path,
                    broken.expected,
                    broken.actual,
                    text,
                    broken.namespace,
                    realtime,
                    monotonic,
                )
            )
            self.findings[finding.id] = finding
            raised.append(finding)
        if raised or cleared:
            self._save()
        return raised, cleared

    def _save(self) -> None:
        lines: list[tuple[str, ...]] = [("last", str(self._last))]
        lines += [
            tuple(str(getattr(finding, name)) for name in Finding.__slots__)
            for finding in self.findings.values()
        ]
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o755, exist_ok=True)
            with open(self._path + ".new", "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(records(lines))
            os.rename(self._path + ".new", self._path)
        except OSError:
            pass  # a restart will count from now, and that is all that is lost

    def _load(self) -> None:
        try:
            with open(self._path, encoding="utf-8", errors="surrogateescape") as file:
                lines = file.read().split("\n")[:-1]
            for line in lines:
                fields = [unescape(field) for field in line.split("\t")]
                if fields[0] == "last":
                    self._last = int(fields[1])
                else:
                    finding = _finding(fields)
                    self.findings[finding.id] = finding
        except (OSError, ValueError, TypeError):
            self.findings = {}


def _finding(fields: list[str]) -> Finding:
    number, kind, path, expected, actual, text, namespace, since, monotonic, *who = fields
    by, pid, command, unit = who
    return Finding(
        int(number),
        Breach(kind),
        path,
        expected,
        actual,
        text,
        int(namespace),
        int(since),
        int(monotonic),
        by,
        int(pid),
        command,
        unit,
    )


def _key(finding: Finding) -> Key:
    return (finding.kind, finding.path, finding.namespace)
