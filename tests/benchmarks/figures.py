"""Taking turns, medians, ratios and the verdict. Pure, apart from calling what is measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

Samples = Mapping[str, Sequence[float]]
"""What was measured, by side, in the order in which it was."""


def in_turn(
    sides: Mapping[str, Callable[[], Mapping[str, float]]],
    runs: int,
    told: Callable[[str], None] = lambda _: None,
) -> dict[str, list[Mapping[str, float]]]:
    """Measure each of `sides` `runs` times, one after the other in every round.

    Each round begins with another side, so that none always follows the same one: whatever else
    the machine is doing then falls on all of them alike. A side may measure several things at
    once; `column` picks one of them. `told` is called with a line a round.
    """
    names = list(sides)
    taken: dict[str, list[Mapping[str, float]]] = {name: [] for name in names}
    for turn in range(runs):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(sides[name]())
        last = (" ".join((name, *map(number, taken[name][-1].values()))) for name in names)
        told(f"{turn + 1}/{runs}: {', '.join(last)}")
    return taken


def column(taken: Mapping[str, Sequence[Mapping[str, float]]], what: str) -> Samples:
    """The samples of one of the things that were measured at once."""
    return {name: [sample[what] for sample in samples] for name, samples in taken.items()}


@dataclass(frozen=True)
class Figure:
    """One figure: `key` is its name in the JSON, `bar` what it may be at most (None: no bar).

    `value` is the median of `over`'s samples divided by that of `under`'s, or, where there is no
    `under`, the median itself. `unit` is that of the samples; a ratio has none.
    """

    key: str
    what: str
    samples: Samples
    over: str
    under: str = ""
    unit: str = ""
    bar: float | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    """Said beside it in the JSON: how it was measured, what it was measured with."""

    @property
    def value(self) -> float:
        over = median(self.samples[self.over])
        return over / median(self.samples[self.under]) if self.under else over

    @property
    def met(self) -> bool:
        """Whether the bar is kept; a figure without one cannot miss it."""
        return self.bar is None or self.value <= self.bar

    @property
    def verdict(self) -> str:
        if self.bar is None:
            return "-"
        return "met" if self.met else "MISSED"


def spread(samples: Sequence[float]) -> tuple[float, float]:
    """The quartiles around the median: half of the samples lie between them."""
    if len(samples) < 2:
        return samples[0], samples[0]
    low, _, high = quantiles(samples, n=4, method="inclusive")
    return low, high


def table(figures: Sequence[Figure]) -> str:
    """The figures as a person reads them: medians of both sides, the figure, bar and verdict."""
    rows = [("figure", "immud", "against", "value", "bar", "verdict")]
    for figure in figures:
        bar = "" if figure.bar is None else f"<= {figure.bar:g}"
        over, under = _side(figure, figure.over), _side(figure, figure.under)
        rows.append((figure.key, over, under, f"{figure.value:.2f}", bar, figure.verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _side(figure: Figure, name: str) -> str:
    """`name 12.3 ms (11.9-13.0)`: a side's median and its quartiles."""
    if not name:
        return ""
    samples = figure.samples[name]
    low, high = spread(samples)
    return f"{name} {number(median(samples))} {figure.unit} ({number(low)}-{number(high)})"


def number(value: float) -> str:
    """Three digits that say something, and never an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def document(figures: Sequence[Figure], machine: Mapping[str, object]) -> dict[str, object]:
    """The same for programs: values by key, and below `details` everything they come from."""
    values: dict[str, object] = {figure.key: round(figure.value, 4) for figure in figures}
    details = {
        figure.key: {
            "what": figure.what,
            "unit": "ratio" if figure.under else figure.unit,
            "bar": figure.bar,
            "met": figure.met,
            "samples_unit": figure.unit,
            "medians": {name: median(samples) for name, samples in figure.samples.items()},
            "samples": {name: list(samples) for name, samples in figure.samples.items()},
            **figure.facts,
        }
        for figure in figures
    }
    return {**values, "machine": dict(machine), "details": details}
