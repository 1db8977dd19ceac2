"""`python -m benchmarks`: measures the chosen rows, and prints each line as it is measured, then the table."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, processor, table
from benchmarks.machine import Cores
from benchmarks.measure import Figure
from benchmarks.rows.every import ROWS
from benchmarks.testbed import DEFAULT, FULL, QUICK, SMOKE, Scale, Testbed

_SCALES = {"quick": QUICK, "full": FULL, "smoke": SMOKE}


def main() -> None:
    """Runs the command. The exit code is 1 if a row failed, and otherwise 0, regardless of the figures."""
    arguments = _arguments()
    scale = next((scale for name, scale in _SCALES.items() if getattr(arguments, name)), DEFAULT)
    if arguments.runs:
        scale = dataclasses.replace(scale, runs=arguments.runs)
    names = arguments.rows.split(",") if arguments.rows else [name for name, row in ROWS.items() if row.usual]
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        sys.exit(f"there is no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    sys.exit(asyncio.run(_measure(names, scale, _command(arguments), arguments)))


def _command(arguments: argparse.Namespace) -> str:
    """Returns the command that was typed, without arguments that do not affect the figures."""
    words = [f"--rows {arguments.rows}"] if arguments.rows else []
    words += [f"--{name}" for name in _SCALES if getattr(arguments, name)]
    words += [f"--runs {arguments.runs}"] if arguments.runs else []
    return f'make bench ARGS="{" ".join(words)}"' if words else "make bench"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    rows = "; ".join(f"{name}: {row.about}" for name, row in ROWS.items())
    parser.add_argument("--rows", default="", help=f"some rows only, with commas between. {rows}")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes and short runs: two minutes")
    size.add_argument("--full", action="store_true", help="more and longer runs: two hours")
    size.add_argument("--smoke", action="store_true", help="whether each row works; its figures mean nothing")
    parser.add_argument("--runs", type=int, default=0, help="runs of the product and of its baseline")
    parser.add_argument(
        "--directory", type=Path, default=None, help="where the database lies; it is flushed, so a disk"
    )
    parser.add_argument("--markdown", type=Path, default=None, help="a file for the table, as Markdown")
    return parser.parse_args()


async def _measure(names: Sequence[str], scale: Scale, command: str, arguments: argparse.Namespace) -> int:
    cores = Cores.of_this_machine()
    began = time.monotonic()
    failed = False
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(
        prefix="pilothouse-bench-", dir=arguments.directory, ignore_cleanup_errors=True
    ) as own:
        testbed = await Testbed.found(Path(own), scale, cores)
        try:
            heading = [*machine.description(await testbed.version()), str(cores)]
            for name in names:
                try:
                    async for figure in ROWS[name].measure(testbed):
                        figures.append(figure)
                        _tell(figure, time.monotonic() - began)
                except Exception as error:  # noqa: BLE001 - a failed row must not stop the others
                    failed = True
                    figures.append(Figure(name, ROWS[name].about, reason=f"{type(error).__name__}: {error}"))
                    _tell(figures[-1], time.monotonic() - began)
        finally:
            await testbed.close()
    length = (
        f"{time.monotonic() - began:.0f} s in all, {processor.seconds(os.getpid()):.0f} s of processor time"
    )
    heading.append(f"{command}: medians of {scale.runs} runs in turns; {length}")
    table.show(figures, heading)
    if arguments.markdown is not None:
        await asyncio.to_thread(arguments.markdown.write_text, table.markdown(figures, heading))
    return int(failed)


def _tell(figure: Figure, seconds: float) -> None:
    said = figure.reason or f"{figure.value} {figure.unit}, baseline {figure.baseline}"
    print(f"[{seconds:5.0f} s] row {figure.row}, {figure.what}: {said}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
