"""Medians, turns, goals, and how the table shows them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest
from benchmarks.measure import (
    Figure,
    Goal,
    GoalOf,
    Pairs,
    Run,
    Series,
    all_in_turns,
    compared,
    database_cost,
    in_turns,
    server_cost,
)

from benchmarks import table

pytestmark = pytest.mark.full


def _arm(name: str, order: list[str], values: Iterator[float]) -> Callable[[], Awaitable[float]]:
    async def run() -> float:
        order.append(name)
        return next(values)

    return run


async def test_each_turn_begins_with_another_arm() -> None:
    order: list[str] = []
    arms = [_arm(name, order, iter([0.0] * 3)) for name in "abc"]
    await all_in_turns(arms, 3, warm=False)
    assert "".join(order) == "abcbcacab"


async def test_the_first_run_of_each_arm_is_discarded() -> None:
    order: list[str] = []
    product = _arm("p", order, iter([1_000.0, 2.0, 6.0, 4.0]))
    baseline = _arm("b", order, iter([1_000.0, 1.0, 2.0, 4.0]))
    pairs = await in_turns(product, baseline, 3)
    assert (pairs.product.value, pairs.baseline.value) == (4.0, 2.0)
    assert pairs.spread == (1.0, 3.0)


def _pairs() -> Pairs:
    product = Series(tuple(Run(value, 400.0 + value, 200.0) for value in (90.0, 100.0, 110.0)))
    return Pairs(product, Series(tuple(Run(200.0, 160.0) for _ in range(3))))


def test_costs_are_medians_per_call() -> None:
    figure = compared("1", "a call", "/s", _pairs(), "echo", ("≥", 0.4))
    assert (figure.server, figure.database) == ((500.0, 160.0), (200.0, None))
    assert figure.ratio == 0.5
    assert figure.met
    assert server_cost("1", "a call", _pairs(), "echo", 2.4).met is False
    assert database_cost("1", "a call", _pairs().product, 250.0).met is True
    assert database_cost("1", "a call", _pairs().product, 150.0).met is False


@pytest.mark.parametrize(
    ("value", "goal", "goal_of", "met"),
    [
        (30.0, ("≤", 20.0), "difference", True),
        (31.0, ("≤", 20.0), "difference", False),
        (30.0, ("≤", 30.0), "value", True),
        (30.0, ("≥", 31.0), "value", False),
        (30.0, ("≥", 3.0), "ratio", True),
        (30.0, ("≤", 2.9), "ratio", False),
    ],
)
def test_a_goal_bounds_the_ratio_the_value_or_the_difference(
    value: float, goal: Goal, goal_of: GoalOf, met: bool
) -> None:
    figure = Figure("9", "something", "KB", value, 10.0, goal=goal, goal_of=goal_of)
    assert figure.met is met


def test_markdown_has_every_line_and_the_reasons() -> None:
    figures = [
        compared("1", "a | call", "/s", _pairs(), "echo", ("≥", 0.6), notes=("a note",)),
        Figure("5", "something else", reason="etcd is not installed"),
    ]
    page = table.markdown(figures, ["a machine"])
    assert "- a machine" in page
    assert (
        "| 1 | a \\| call | 100 /s | 200 /s echo | 0.50 × | 0.45–0.55 | ≥ 0.6 × | missed | 500 / 160 µs | 200 µs |"
        in page
    )
    assert "- row 5, something else: not measured: etcd is not installed" in page
    assert "- row 1, a | call: a note" in page
