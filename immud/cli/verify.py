"""`immud verify`: what the tripwire finds, for people, cron and monitoring."""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from immud.cli.bus import talk
from immud.cli.render import Style, visible
from immud.errors import ImmudError, Unreachable

if TYPE_CHECKING:
    from immud.client import Client

Finding = Mapping[str, Any]
"""The properties of org.immud1.Finding."""

INTEGRITY = {"intact": 1, "violated": 0}


def verify(arguments: Namespace) -> int:
    """Look, print, and return 1 where there is a finding. Raises Unreachable without a daemon,
    and ImmudError where it could not look at everything.
    """
    try:
        if arguments.fix:
            talk(_fix)
        integrity, findings = talk(_ask)
    except ImmudError as error:
        # Better no figures than those of yesterday, which would look like a good day.
        if arguments.metrics:
            answered = None if isinstance(error, Unreachable) else "unknown"
            _replace(arguments.metrics, metrics(answered, None, time.time()))
        raise
    if arguments.metrics:
        _replace(arguments.metrics, metrics(integrity, findings, time.time()))
    if arguments.json:
        import json  # noqa: PLC0415 - only here

        print(json.dumps({"integrity": integrity, "findings": findings}, indent=2))
    else:
        for line in lines(integrity, findings, Style.of(sys.stdout)):
            print(line)
    return 1 if findings else 0


async def _fix(client: "Client") -> None:
    await client.wait(await client.reconcile())


async def _ask(client: "Client") -> tuple[str, list[dict[str, Any]]]:
    findings = await client.verify()
    manager = await client.get_all()
    # What came between the two calls is not left out of either.
    return ("violated" if findings else manager["Integrity"]), findings


def lines(integrity: str, findings: Sequence[Finding], style: Style) -> Iterator[str]:
    """What a person reads. Pure."""
    if integrity == "unknown":
        yield "This boot has no layout, so there is nothing to compare it with."
    elif not findings:
        yield style.paint("Everything is as this boot left it.", "green")
    for finding in findings:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(finding["Since"] / 1e6))
        yield style.paint(f"{visible(finding['Text'])}.", "red")
        yield f"  expected  {visible(finding['Expected'])}"
        yield f"  found     {visible(finding['Actual'])}"
        yield f"  since     {when}"
        if finding["By"]:
            yield f"  {'by' if finding['By'] == 'author' else 'seen by':<8}  {_who(finding)}"


def _who(finding: Finding) -> str:
    name = visible(finding["Command"]) or "a process that has ended"
    unit = f" of {visible(finding['Unit'])}" if finding["Unit"] else ""
    return f"{name} (pid {finding['Pid']}){unit}"


def metrics(integrity: str | None, findings: Sequence[Finding] | None, now: float) -> str:
    """OpenMetrics text; `integrity` is None where the daemon cannot be reached, `findings` where
    it could not look. Pure.
    """
    text = _family("immud_up", "Whether the daemon answered.", [("", integrity is not None)])
    if integrity in INTEGRITY:
        said = "Whether everything protected is as the boot left it."
        text += _family("immud_intact", said, [("", INTEGRITY[integrity])])
    if findings is not None:
        counts: dict[str, int] = {}
        for finding in findings:
            labels = f'{{kind="{_label(finding["Kind"])}",path="{_label(finding["Path"])}"}}'
            counts[labels] = counts.get(labels, 0) + 1
        said = "Findings of the tripwire."
        text += _family("immud_findings", said, list(counts.items()))
        total = [("", len(findings))]
        text += _family("immud_findings_now", "How many findings there are.", total)
    said = "When this was written."
    text += _family("immud_verified_timestamp_seconds", said, [("", f"{now:.3f}")], "seconds")
    return text + "# EOF\n"


def _family(name: str, said: str, samples: Sequence[tuple[str, object]], unit: str = "") -> str:
    head = f"# TYPE {name} gauge\n" + (f"# UNIT {name} {unit}\n" if unit else "")
    return f"{head}# HELP {name} {said}\n" + "".join(
        f"{name}{labels} {int(value) if isinstance(value, bool) else value}\n"
        for labels, value in samples
    )


def _label(text: str) -> str:
    """A label's value, as OpenMetrics has it escaped."""
    valid = text.encode("utf-8", "backslashreplace").decode()
    return valid.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _replace(path: str, text: str) -> None:
    """Write `path` in one step: the collector reads whenever it likes, and takes *.prom only."""
    aside = f"{path}.{os.getpid()}"
    try:
        with open(aside, "x", encoding="utf-8") as file:
            file.write(text)
        os.rename(aside, path)
    except OSError:
        if os.path.exists(aside):
            os.unlink(aside)
        raise
