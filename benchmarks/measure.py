"""How a figure comes about: the product and its baseline in turns, and the medians of both.

In turns, because what disturbs a machine lasts for seconds: it then disturbs both. The first run of each is thrown
away, since caches are cold in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Arm = Callable[[], Awaitable[float]]
# Whether the goal is a ratio or a figure that is at least, or at most, so much.
Goal = tuple[Literal["≥", "≤"], float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    `value` and `baseline` are medians in `unit`; `spread` is the smallest and largest ratio of a pair of runs.
    `ratio` is value / baseline. Where a thing could not be measured, `reason` says why.
    """

    row: str
    what: str
    unit: str = ""
    value: float | None = None
    baseline: float | None = None
    baseline_name: str = ""
    spread: tuple[float, float] | None = None
    goal: Goal | None = None
    # What `goal` is held against: the ratio, the value itself, or value - baseline.
    goal_of: Literal["ratio", "value", "difference"] = "ratio"
    reason: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def ratio(self) -> float | None:
        """value / baseline."""
        if self.value is None or not self.baseline:
            return None
        return self.value / self.baseline

    @property
    def held(self) -> float | None:
        """What the goal is about."""
        if self.goal_of == "ratio":
            return self.ratio
        if self.goal_of == "difference" and self.value is not None and self.baseline is not None:
            return self.value - self.baseline
        return self.value

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal or a figure."""
        if self.goal is None or self.held is None:
            return None
        sign, bound = self.goal
        return self.held >= bound if sign == "≥" else self.held <= bound


@dataclass(frozen=True, slots=True)
class Pairs:
    """The runs of both arms, in order."""

    product: tuple[float, ...]
    baseline: tuple[float, ...]

    @property
    def value(self) -> float:
        """Median of the product's runs."""
        return median(self.product)

    @property
    def base(self) -> float:
        """Median of the baseline's."""
        return median(self.baseline)

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest ratio of two runs that followed each other."""
        ratios = [a / b for a, b in zip(self.product, self.baseline, strict=True) if b]
        return (min(ratios), max(ratios)) if ratios else (0.0, 0.0)


async def in_turns(product: Arm, baseline: Arm, runs: int, *, warm: bool = True) -> Pairs:
    """Runs both arms `runs` times in turns; which of the two begins changes each time."""
    if warm:
        await baseline()
        await product()
    values: list[float] = []
    bases: list[float] = []
    for number in range(runs):
        if number % 2:
            values.append(await product())
            bases.append(await baseline())
        else:
            bases.append(await baseline())
            values.append(await product())
    return Pairs(tuple(values), tuple(bases))
