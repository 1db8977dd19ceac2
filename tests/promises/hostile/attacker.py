"""Attackers are processes of their own, of low priority, so that what they cost is not taken for the server's.

An attack is a coroutine in a module that ends with `run({"resets": resets})`. The campaign starts it by `attacking`:

    async with attacking("tests.promises.hostile.attacks", "resets", address=…, count=2000) as attack:
        …                          # the attack begins, and goes on
    assert attack.report["resets"] >= 2000

It says `ready` when it begins, goes on until its standard input is closed, by whoever started it or by their end, and
prints what it did: an attack that did nothing has shown nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.processes import started
from tests.readme.served import ROOT
from tests.waiting import within

# What an attack costs its attacker is paid on another machine. Here it gives way to those who would not share one with
# it; all of an attack is made nonetheless, which each report tells.
_NICENESS = 10

Report = dict[str, Any]


@dataclass
class Order:
    """What an attacker is told: where to, from which address, and whatever else the attack needs."""

    address: str
    source: str = "127.0.0.9"
    count: int = 0
    token: str = ""
    namespace: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def begins(self) -> None:
        """Says that the attack begins now: whoever waits for it is to see its first moment."""
        print("ready", flush=True)

    def is_through(self) -> None:
        """Says that all was tried once that the attack knows; see `Attack.through`."""
        print("through", flush=True)


Act = Callable[[Order], Awaitable[Report]]


@dataclass
class Attack:
    """An attack that goes on; its report is there once it has ended."""

    process_id: int
    output: asyncio.StreamReader
    report: Report = field(default_factory=dict)

    async def through(self) -> None:
        """Returns when the attack has tried all that it knows; only of one that says so."""
        async with within(60):
            line = await self.output.readline()
        assert line == b"through\n", line


@asynccontextmanager
async def attacking(module: str, name: str, **order: Any) -> AsyncIterator[Attack]:
    """Has an attack go on until the end of the block; `order` are the fields of an `Order`."""
    pipe = asyncio.subprocess.PIPE
    words = (sys.executable, "-m", module, name)
    async with started(*words, stdin=pipe, stdout=pipe, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        async with within(60):
            line = await process.stdout.readline()
        assert line == b"ready\n", f"{name} does not begin: {line.decode()}"
        attack = Attack(process.pid, process.stdout)
        yield attack
        process.stdin.close()
        async with within(60):
            # Perhaps after a line that nobody has waited for.
            attack.report = json.loads((await process.stdout.read()).splitlines()[-1])


def run(attacks: Mapping[str, Act]) -> None:
    """The program: does what the first word names, as the first line of standard input orders it."""
    os.nice(_NICENESS)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    order = Order(**json.loads(sys.stdin.readline()))
    report = asyncio.run(_until_over(attacks[sys.argv[1]], order))
    print(json.dumps(report), flush=True)


async def _until_over(act: Act, order: Order) -> Report:
    end = asyncio.create_task(_end_of_input(order.over))
    try:
        return await act(order)
    finally:
        end.cancel()


async def _end_of_input(over: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()
    over.set()
