"""The table, as text: machine, versions, which core does what, then a line for each figure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Figure


def show(figures: Sequence[Figure], heading: Sequence[str]) -> None:
    """Prints the table; figures without one say why below it."""
    console = Console(highlight=False, width=None if Console().is_terminal else 150)
    for line in heading:
        console.print(line, soft_wrap=True)
    table = Table(box=None, padding=(0, 1))
    for name in ("row", "what"):
        table.add_column(name, overflow="fold")
    for name in ("product", "baseline", "ratio", "(of pairs)", "goal", ""):
        table.add_column(name, justify="right")
    for figure in figures:
        if not figure.reason:
            table.add_row(*_cells(figure))
    console.print(table)
    for figure in figures:
        if figure.reason:
            console.print(f"row {figure.row}, {figure.what}: not measured: {figure.reason}", soft_wrap=True)
    for figure in figures:
        for note in figure.notes:
            console.print(f"row {figure.row}, {figure.what}: {note}", soft_wrap=True)


def _cells(figure: Figure) -> tuple[str, ...]:
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} ×"
    spread = "" if figure.spread is None else f"{figure.spread[0]:.2f}–{figure.spread[1]:.2f}"
    met = figure.met
    return (
        figure.row,
        figure.what,
        _amount(figure.value, figure.unit),
        _amount(figure.baseline, figure.unit) + (f" {figure.baseline_name}" if figure.baseline_name else ""),
        ratio,
        spread,
        _goal(figure),
        "" if met is None else ("met" if met else "missed"),
    )


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    sign, bound = figure.goal
    if figure.goal_of == "ratio":
        return f"{sign} {bound:g} ×"
    more = "+" if figure.goal_of == "difference" else ""
    return f"{sign} {more}{bound:g} {figure.unit}"


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()
