"""`python -m benchmarks.profile --row 1` (2, 2c, 15): the CPU time of one call, in microseconds, by layer.

The product runs as with `pilothouse serve`, while `sampled` samples its main thread every few milliseconds. It serves
GetContainer, CreateContainer or UpdateContainer for some seconds, or applies of 500 containers, each of which counts
as a call. The output is the CPU time of the server and of PostgreSQL per call, next to that of a bare echo in the
same run; the server's time by layer; the statements that a call sends; and the most expensive functions. A run takes
less than a minute, on a busy machine less than two.

CPU time hardly depends on the other load of the machine; calls per second do.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import sys
import tempfile
from base64 import b64encode
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import layers, machine, processor
from benchmarks.baselines.grpc_server import GET
from benchmarks.machine import Cores
from benchmarks.population import ACTIVE_NAMESPACES
from benchmarks.product import Product
from benchmarks.rows import changing, reading, writing
from benchmarks.testbed import QUICK, Testbed, connected

# A run takes half a minute, or longer if the machine does other work.
_LIMIT_SECONDS = 600.0
_FILE_SECONDS = 10.0
_WARM_SECONDS = 1.5
_ECHO_SECONDS = 1.5
_STATEMENTS = 12
_FUNCTIONS = 20
_CUMULATIVE = 40
_WIDTH = 100
_APPLIED = 500

_TOP_STATEMENTS = """
SELECT s.calls, s.total_exec_time * 1000 AS microseconds, s.rows, r.rolname AS role,
       regexp_replace(s.query, '\\s+', ' ', 'g') AS query
FROM pilothouse_statistics.pg_stat_statements AS s JOIN pg_roles AS r ON r.oid = s.userid
WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND r.rolname <> 'postgres'
ORDER BY s.total_exec_time DESC
"""

_CALLS = {
    "1": "GetContainer",
    "2": "CreateContainer",
    "2c": "UpdateContainer",
    "15": "a container of ApplyApplication",
}
Load = Callable[[float], Awaitable[Mapping[str, float]]]


class Stack(msgspec.Struct):
    """A stack of the server's main thread, innermost frame first, and the number of its samples."""

    count: int
    stack: list[tuple[str, str]]


class Samples(msgspec.Struct):
    """The output of `sampled`: the CPU seconds of the main thread, and its stacks."""

    seconds: float
    stacks: list[Stack]


@dataclass(frozen=True, slots=True)
class Measured:
    """The CPU time of a run under load, in microseconds per call."""

    calls: float
    rate: float
    server: float
    threads: Mapping[str, float]
    database: Mapping[str, float]
    samples: Samples


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    rows = "; ".join(f"{row}: {call}" for row, call in _CALLS.items())
    parser.add_argument("--row", choices=tuple(_CALLS), default="1", help=rows)
    parser.add_argument(
        "--key", action="store_true", help="the caller shows an API key in place of a session"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of load, 25 at most")
    parser.add_argument("--containers", type=int, default=1_000, help="that are there before")
    arguments = parser.parse_args()
    if not 0 < arguments.seconds <= 25:
        parser.error("--seconds: more than 0, and 25 at most")
    asyncio.run(_bounded(arguments))


async def _bounded(arguments: argparse.Namespace) -> None:
    try:
        async with asyncio.timeout(_LIMIT_SECONDS):
            await _profile(arguments)
    except TimeoutError:
        sys.exit(
            f"not ended after {_LIMIT_SECONDS:.0f} s: the machine is too busy, or there are too many containers"
        )


async def _profile(arguments: argparse.Namespace) -> None:
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="pilothouse-profile-", ignore_cleanup_errors=True) as own:
        testbed = await Testbed.found(Path(own), QUICK, Cores.of_this_machine())
        try:
            for line in (*machine.description(await testbed.version()), str(testbed.cores)):
                print(line)
            await _on(testbed, arguments)
        finally:
            await testbed.close()
    print(f"load of the machine: {load_before:.1f} before, {os.getloadavg()[0]:.1f} after")


async def _on(testbed: Testbed, arguments: argparse.Namespace) -> None:
    row, seconds, containers = arguments.row, arguments.seconds, arguments.containers
    file = testbed.directory / "samples.json"
    program = (sys.executable, "-m", "benchmarks.sampled", str(file), "serve")
    async with (
        testbed.database(containers) as database,
        testbed.product(database, program=program) as product,
        testbed.children(
            ("baselines.grpc_server", testbed.cores.serving),
            ("loads.calls", testbed.cores.asking),
            ("loads.changes", testbed.cores.asking),
            ("loads.applications", testbed.cores.asking),
        ) as (bare, calls, changes, applications),
    ):
        token = await product.tenant_token()
        if arguments.key:
            token = await product.tenant_key()
        echo = await bare.ask(
            "start", answer=b64encode(await reading.one_answer(product.address, token)).decode()
        )
        common: dict[str, Any] = {"requests": reading.encoded_requests(), "concurrency": reading.CONCURRENCY}

        async def get(length: float) -> Mapping[str, float]:
            where = {"address": product.address, "method": reading.METHOD, "token": token}
            return dict(await calls.ask("run", seconds=length, **where, **common))

        async def create(length: float) -> Mapping[str, float]:
            return dict(await writing.create(calls, product.address, token, length))

        async def update(length: float) -> Mapping[str, float]:
            return dict(
                await changes.ask(
                    "run",
                    address=product.address,
                    kind="update",
                    owned=changing.owned(containers),
                    seconds=length,
                    token=token,
                )
            )

        numbers = itertools.count()

        async def apply(length: float) -> Mapping[str, float]:
            made, taken = 0, 0.0
            while taken < length:
                number = next(numbers)
                where = {"namespace": f"tenant-{number % ACTIVE_NAMESPACES}", "name": f"made-{number}"}
                said = await applications.ask(
                    "apply", address=product.address, token=token, count=_APPLIED, **where
                )
                made, taken = made + _APPLIED, taken + said["seconds"]
            return {"calls": made, "rate": made / taken}

        load = {"1": get, "2": create, "2c": update, "15": apply}[row]
        before = processor.seconds(bare.process_id)
        echoed = await calls.ask(
            "run", address=echo, method=GET, seconds=min(seconds, _ECHO_SECONDS), **common
        )
        echo_cost = (processor.seconds(bare.process_id) - before) / echoed["calls"] * 1e6
        await load(min(seconds, _WARM_SECONDS))
        async with connected(database.superuser) as connection:
            await connection.execute("SELECT pilothouse_statistics.pg_stat_statements_reset()")
            measured = await _measured(testbed, product, file, load, seconds)
            statements = await connection.fetch(_TOP_STATEMENTS)
    what = _CALLS[row]
    print(
        f"\n{what}, {containers:,} containers: {measured.rate:,.0f} calls a second, {measured.calls:,.0f} in all"
    )
    _print_totals(measured, echo_cost)
    _print_layers(measured)
    _print_statements(measured.calls, statements)
    _print_functions(measured)
    _print_cumulative(measured)


async def _measured(testbed: Testbed, product: Product, file: Path, load: Load, seconds: float) -> Measured:
    postmaster = testbed.postgres.process_id
    assert postmaster is not None
    server, threads = processor.seconds(product.process_id), processor.by_thread(product.process_id)
    database = processor.by_role(postmaster)
    os.kill(product.process_id, signal.SIGUSR1)
    answer = await load(seconds)
    os.kill(product.process_id, signal.SIGUSR2)
    each = 1e6 / answer["calls"]
    used = processor.seconds(product.process_id) - server
    return Measured(
        answer["calls"],
        answer["rate"],
        used * each,
        _differences(threads, processor.by_thread(product.process_id), each),
        _differences(database, processor.by_role(postmaster), each),
        await _samples(file),
    )


def _differences(before: Mapping[str, float], after: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: (value - before.get(name, 0.0)) * factor for name, value in after.items()}


async def _samples(file: Path) -> Samples:
    async with asyncio.timeout(_FILE_SECONDS):
        # The server writes the file as soon as it can, and sends no notification.
        while not file.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return msgspec.json.decode(await asyncio.to_thread(file.read_bytes), type=Samples)


def _print_totals(measured: Measured, echo: float) -> None:
    database = sum(measured.database.values())
    print(
        f"\nprocessor time of a call, in µs                 ({echo:,.0f} of a bare echo's server in this run)"
    )
    print(f"{measured.server:10,.0f}  server, {measured.server / echo:.1f} × the echo")
    for name, cost in _largest(measured.threads, 6):
        print(f"{cost:10,.0f}    thread {name}")
    print(f"{database:10,.0f}  PostgreSQL")
    for name, cost in _largest(measured.database, 3):
        print(f"{cost:10,.0f}    {name}")


def _print_layers(measured: Measured) -> None:
    """Prints the main thread's time by layer. A sample stands for all CPU time since the previous sample."""
    counts: Counter[str] = Counter()
    asked: dict[str, Counter[str]] = {}
    for each in measured.samples.stacks:
        layer, by = layers.layer_of(each.stack)
        counts[layer] += each.count
        asked.setdefault(layer, Counter())[by] += each.count
    total, main = counts.total(), _main(measured)
    print(f"\nthe server's main thread by layer, of {total:,} samples")
    for layer in sorted(counts, key=layers.ORDER.index):
        print(f"{main * counts[layer] / total:10,.0f}  {layer}")
        for by, count in asked[layer].most_common():
            if by and count * 100 >= total:
                print(f"{main * count / total:10,.0f}    asked by {by}")


def _print_statements(calls: float, statements: Sequence[Mapping[str, Any]]) -> None:
    sent = sum(row["calls"] for row in statements)
    print(
        f"\nstatements: {sent / calls:.2f} a call; of each how many a call, µs of each by PostgreSQL's clock, role"
    )
    for row in statements[:_STATEMENTS]:
        head = (
            f"{row['calls'] / calls:10.3f} {row['microseconds'] / row['calls']:9,.0f}  {row['role'][11:]:12}"
        )
        print(f"{head} {row['query'].strip()[:_WIDTH]}")


def _print_functions(measured: Measured) -> None:
    counts: Counter[str] = Counter()
    for each in measured.samples.stacks:
        counts[layers.function_of(each.stack)] += each.count
    total, main = counts.total(), _main(measured)
    print("\nfunctions that cost most by themselves, with the C that they call, in µs a call")
    for name, count in counts.most_common(_FUNCTIONS):
        print(f"{main * count / total:10,.0f}  {name}")


def _print_cumulative(measured: Measured) -> None:
    counts: Counter[str] = Counter()
    for each in measured.samples.stacks:
        for function in layers.functions_of(each.stack):
            counts[function] += each.count
    total, main = sum(each.count for each in measured.samples.stacks), _main(measured)
    print("\nfunctions of the product, with all that they call and wait through, in µs a call")
    for name, count in counts.most_common(_CUMULATIVE):
        print(f"{main * count / total:10,.0f}  {name}")


def _main(measured: Measured) -> float:
    return measured.samples.seconds / measured.calls * 1e6


def _largest(costs: Mapping[str, float], count: int) -> list[tuple[str, float]]:
    return sorted(((name, cost) for name, cost in costs.items() if cost >= 0.5), key=lambda each: -each[1])[
        :count
    ]


if __name__ == "__main__":
    main()
