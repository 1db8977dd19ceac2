"""The table, as text or as Markdown: machine, versions, cores, then a line for each figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Figure

_HEADS = (
    "row",
    "what",
    "product",
    "baseline",
    "ratio",
    "of pairs",
    "goal",
    "",
    "server CPU",
    "PostgreSQL CPU",
)
# The number of columns with text.
_TEXT = 2
_EXPLAINED = "CPU: microseconds of processor time a call, user and system; the product's / the baseline's."


def show(figures: Sequence[Figure], heading: Sequence[str]) -> None:
    """Prints the table; below it, the reasons of rows without a figure."""
    console = Console(highlight=False, width=None if Console().is_terminal else 190)
    for line in (*heading, _EXPLAINED):
        console.print(line, soft_wrap=True)
    table = Table(box=None, padding=(0, 1))
    for number, name in enumerate(_HEADS):
        if number < _TEXT:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right")
    for figure in figures:
        if not figure.reason:
            table.add_row(*_cells(figure))
    console.print(table)
    for line in _words(figures):
        console.print(line, soft_wrap=True)


def markdown(figures: Sequence[Figure], heading: Sequence[str]) -> str:
    """Returns the same as Markdown."""
    lines = [f"- {line}" for line in (*heading, _EXPLAINED)]
    lines += ["", _row(_HEADS), _row("---" if number < _TEXT else "---:" for number in range(len(_HEADS)))]
    lines += (_row(_cells(figure)) for figure in figures if not figure.reason)
    if words := _words(figures):
        lines += ["", *(f"- {line}" for line in words)]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _words(figures: Sequence[Figure]) -> list[str]:
    lines = [
        f"row {figure.row}, {figure.what}: not measured: {figure.reason}"
        for figure in figures
        if figure.reason
    ]
    for figure in figures:
        lines += (f"row {figure.row}, {figure.what}: {note}" for note in figure.notes)
    return lines


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
        _costs(figure.server),
        _costs(figure.database),
    )


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    sign, bound = figure.goal
    if figure.goal_of == "ratio":
        return f"{sign} {bound:g} ×"
    more = "+" if figure.goal_of == "difference" else ""
    return f"{sign} {more}{bound:,g} {figure.unit}"


def _costs(costs: tuple[float | None, float | None]) -> str:
    known = [f"{cost:,.0f}" for cost in costs if cost is not None]
    return " / ".join(known) + (" µs" if known else "")


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()
