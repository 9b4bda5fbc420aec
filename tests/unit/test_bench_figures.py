"""The arithmetic of tests/bench: turns, medians, ratios, verdicts, what is printed and written."""

import json
from collections.abc import Callable, Mapping

import pytest

from tests.benchmarks.boot import variant
from tests.benchmarks.figures import Figure, column, document, in_turn, number, spread, table


def figure(over: list[float], under: list[float] | None = None, bar: float | None = None) -> Figure:
    samples = {"immud": over, **({"other": under} if under else {})}
    return Figure("x.y", "x", samples, "immud", "other" if under else "", "ms", bar)


def test_sides_take_turns_and_another_one_begins_each_round() -> None:
    order: list[str] = []

    def side(name: str) -> Callable[[], Mapping[str, float]]:
        def once() -> Mapping[str, float]:
            order.append(name)
            return {"at": len(order), "other": 0}

        return once

    taken = in_turn({name: side(name) for name in "abc"}, 4)
    assert "".join(order) == "abcbcacababc"
    assert column(taken, "at") == {"a": [1, 6, 8, 10], "b": [2, 4, 9, 11], "c": [3, 5, 7, 12]}


def test_a_ratio_is_that_of_the_medians_and_one_slow_run_does_not_move_it() -> None:
    assert figure([10, 11, 900], [20, 22, 21]).value == pytest.approx(11 / 21)


def test_without_another_side_the_value_is_the_median() -> None:
    assert figure([0.5, 0.7, 0.6, 0.8]).value == pytest.approx(0.65)


@pytest.mark.parametrize(
    ("value", "met", "verdict"), [(0.99, True, "met"), (1.0, True, "met"), (1.001, False, "MISSED")]
)
def test_a_bar_is_met_up_to_itself(value: float, met: bool, verdict: str) -> None:
    measured = figure([value], bar=1.0)
    assert (measured.met, measured.verdict) == (met, verdict)


def test_a_figure_that_rounds_to_its_bar_still_misses_it() -> None:
    missed = figure([1.0004], bar=1.0)
    assert "1.00 " in table([missed])
    assert "MISSED" in table([missed])


def test_a_figure_without_a_bar_has_no_verdict() -> None:
    assert (figure([9.0]).met, figure([9.0]).verdict) == (True, "-")


def test_the_spread_is_the_middle_half() -> None:
    assert spread([4, 1, 3, 2, 5]) == (2, 4)
    assert spread([7]) == (7, 7)


@pytest.mark.parametrize(
    ("value", "text"), [(11734.4, "11734"), (100, "100"), (63.39, "63.4"), (0.5481, "0.548")]
)
def test_numbers_are_short_and_have_no_exponent(value: float, text: str) -> None:
    assert number(value) == text


def test_the_document_has_values_by_key_and_every_sample() -> None:
    measured = figure([30, 10, 20], [10, 10, 10], bar=1.5)
    written = json.loads(json.dumps(document([measured], {"cpus": 2})))
    assert written["x.y"] == 2.0
    assert written["machine"] == {"cpus": 2}
    details = written["details"]["x.y"]
    assert details["samples"] == {"immud": [30, 10, 20], "other": [10, 10, 10]}
    assert details["medians"] == {"immud": 20, "other": 10}
    assert (details["bar"], details["met"], details["unit"]) == (1.5, False, "ratio")


def test_a_variant_of_the_unit_differs_in_what_it_runs_alone() -> None:
    shipped = (
        "[Unit]\nBefore=a.target\n[Service]\nType=notify\nExecStart=/usr/bin/x\nRestart=always\n"
        "LockPersonality=yes\n[Install]\nWantedBy=a.target\nAlias=y.service\n"
    )
    assert variant(shipped, {"Type": ["oneshot"], "ExecStart": ["/a", "/b"]}) == (
        "[Unit]\nBefore=a.target\n[Service]\nType=oneshot\nExecStart=/a\nExecStart=/b\n"
        "LockPersonality=yes\n[Install]\nWantedBy=a.target\n"
    )
