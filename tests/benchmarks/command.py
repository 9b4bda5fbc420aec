"""The command: which parts, how many runs, where the figures go."""

import argparse
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.benchmarks import boot, flood, lease, memory, tomb, tripwire, vm
from tests.benchmarks.figures import Figure, document, table

PARTS: Mapping[str, tuple[Callable[[int], list[Figure]], int]] = {
    "boot": (boot.measure, boot.RUNS),
    "vm": (vm.measure, vm.RUNS),
    "tomb": (tomb.measure, tomb.RUNS),
    "flood": (flood.measure, flood.RUNS),
    "memory": (memory.measure, memory.RUNS),
    "lease": (lease.measure, lease.RUNS),
    "tripwire": (tripwire.measure, tripwire.RUNS),
}
"""What there is to measure, and how many runs of each side it takes unless told otherwise."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; 0 if every bar is met, 1 if one is missed."""
    options = _parser().parse_args(argv)
    figures = []
    for name in options.part or PARTS:
        measure, runs = PARTS[name]
        figures += measure(options.runs or runs)
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(table(figures))
    if options.json:
        text = json.dumps(document(figures, facts), indent=2)
        (options.origin / options.json).write_text(text + "\n")
    return 0 if all(figure.met for figure in figures) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests/bench", add_help=False)
    parser.add_argument("--from", type=Path, dest="origin", default=Path(), help=argparse.SUPPRESS)
    parser.add_argument("part", nargs="*", type=_part, metavar="|".join(PARTS))
    parser.add_argument("--runs", type=_count, metavar="N", help="measure each side N times")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser


def _part(text: str) -> str:
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"no part {text!r}; there are {', '.join(PARTS)}")
    return text


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "kernel": platform.release(),
        "load": round(os.getloadavg()[0], 2),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
