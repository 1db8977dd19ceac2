"""How a figure is measured: the product and its baseline run in turns, and the figure is the medians of both.

They run in turns because disturbances of a machine last for seconds, and then affect all arms. The first run of each
arm is discarded, because its caches are cold.

Throughput on few cores depends on other load; CPU time does not. So a run that consists of calls also reports the CPU
time of a call, in the server and in PostgreSQL (`Run`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an arm: its figure, and the CPU time of a call in microseconds."""

    value: float
    server: float | None = None
    database: float | None = None


Arm = Callable[[], Awaitable[float | Run]]
# The lower or upper bound of a ratio or figure.
Goal = tuple[Literal["≥", "≤"], float]
GoalOf = Literal["ratio", "value", "difference"]


@dataclass(frozen=True, slots=True)
class Series:
    """The runs of one arm, in order."""

    runs: tuple[Run, ...]

    @property
    def value(self) -> float:
        """The median of the figures."""
        return median(run.value for run in self.runs)

    @property
    def server(self) -> float | None:
        """The median CPU time of a call in the server, µs; None if the runs do not consist of calls."""
        return _median([run.server for run in self.runs])

    @property
    def database(self) -> float | None:
        """The median CPU time of a call in PostgreSQL, µs."""
        return _median([run.database for run in self.runs])


@dataclass(frozen=True, slots=True)
class Pairs:
    """The runs of the product and of its baseline."""

    product: Series
    baseline: Series

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and largest ratio of two runs of the same turn."""
        turns = zip(self.product.runs, self.baseline.runs, strict=True)
        ratios = [product.value / baseline.value for product, baseline in turns if baseline.value]
        return (min(ratios), max(ratios)) if ratios else (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    `value` and `baseline` are medians in `unit`; `spread` is the smallest and largest ratio of a pair of runs.
    `ratio` is value / baseline. `server` and `database` are the CPU time of a call in microseconds, for the product
    and the baseline. If a value could not be measured, `reason` explains why.
    """

    row: str
    what: str
    unit: str = ""
    value: float | None = None
    baseline: float | None = None
    baseline_name: str = ""
    spread: tuple[float, float] | None = None
    goal: Goal | None = None
    # The number that `goal` is compared with: the ratio, the value itself, or value - baseline.
    goal_of: GoalOf = "ratio"
    reason: str = ""
    notes: tuple[str, ...] = field(default=())
    server: tuple[float | None, float | None] = (None, None)
    database: tuple[float | None, float | None] = (None, None)

    @property
    def ratio(self) -> float | None:
        """value / baseline."""
        if self.value is None or not self.baseline:
            return None
        return self.value / self.baseline

    @property
    def held(self) -> float | None:
        """The number that the goal is compared with."""
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


def compared(
    row: str,
    what: str,
    unit: str,
    pairs: Pairs,
    baseline_name: str,
    goal: Goal | None = None,
    *,
    goal_of: GoalOf = "ratio",
    notes: tuple[str, ...] = (),
) -> Figure:
    """Returns the line of a product and its baseline."""
    product, baseline = pairs.product, pairs.baseline
    return Figure(
        row,
        what,
        unit,
        product.value,
        baseline.value,
        baseline_name,
        pairs.spread,
        goal,
        goal_of,
        notes=notes,
        server=(product.server, baseline.server),
        database=(product.database, baseline.database),
    )


def server_cost(row: str, what: str, pairs: Pairs, baseline_name: str, most: float) -> Figure:
    """Returns the line of the server's CPU time per call, next to the baseline's."""
    runs = zip(pairs.product.runs, pairs.baseline.runs, strict=True)
    ratios = [
        product.server / baseline.server for product, baseline in runs if product.server and baseline.server
    ]
    return Figure(
        row,
        f"{what}: server CPU of a call",
        "µs",
        pairs.product.server,
        pairs.baseline.server,
        baseline_name,
        (min(ratios), max(ratios)) if ratios else None,
        ("≤", most),
    )


def database_cost(row: str, what: str, product: Series, most: float) -> Figure:
    """Returns the line of PostgreSQL's CPU time per call."""
    return Figure(
        row,
        f"{what}: PostgreSQL's CPU of a call",
        "µs",
        product.database,
        goal=("≤", most),
        goal_of="value",
    )


def together(series: Series) -> Series:
    """Returns the runs with the total CPU time of a call, server and PostgreSQL, as their figure."""
    return Series(
        tuple(
            Run((run.server or 0.0) + (run.database or 0.0), run.server, run.database) for run in series.runs
        )
    )


async def all_in_turns(arms: Sequence[Arm], runs: int, *, warm: bool = True) -> list[Series]:
    """Runs each arm `runs` times, in turns; each turn starts with another arm."""
    if warm:
        for arm in arms:
            await arm()
    measured: list[list[Run]] = [[] for _ in arms]
    for turn in range(runs):
        for place in range(len(arms)):
            number = (turn + place) % len(arms)
            said = await arms[number]()
            measured[number].append(said if isinstance(said, Run) else Run(said))
    return [Series(tuple(each)) for each in measured]


async def in_turns(product: Arm, baseline: Arm, runs: int, *, warm: bool = True) -> Pairs:
    """Runs both arms `runs` times in turns; the baseline starts."""
    bases, values = await all_in_turns((baseline, product), runs, warm=warm)
    return Pairs(values, bases)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
