"""Attackers are processes of their own, of low priority, so that their cost is not taken for the server's.

An attack is a coroutine in a module that ends with `run({"resets": resets})`. The campaign starts it by `attacking`:

    async with attacking("tests.promises.hostile.attacks", "resets", address=…, count=2000) as attack:
        …                          # the attack begins, and goes on
    assert attack.report["resets"] >= 2000

It prints `ready` when it begins, runs until its standard input is closed, by its starter or by the starter's end, and
prints its counts: an attack without effect has proved nothing.
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

# In reality the attacker's cost falls on another machine. Here it gives way to processes that would not share one
# with it; all of an attack is made nonetheless, as each report shows.
_NICENESS = 10

Report = dict[str, Any]


@dataclass
class Order:
    """The orders of an attacker: the target, the source address, and the attack's other parameters."""

    address: str
    source: str = "127.0.0.9"
    count: int = 0
    token: str = ""
    namespace: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def begins(self) -> None:
        """Announces that the attack begins now: the waiting test shall see its first moment."""
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
    """The program: runs the attack that the first word names, as the first line of standard input orders it."""
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
