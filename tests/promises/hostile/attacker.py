"""Attackers are processes of their own, with low priority.

Their cost is therefore not attributed to the server. An attack is a coroutine in a module that ends with
`run({"resets": resets})`. The campaign starts it with `attacking`:

    async with attacking("tests.promises.hostile.attacks", "resets", address=…, count=2000) as attack:
        …                          # the attack runs
    assert attack.report["resets"] >= 2000

The attacker prints `ready` when it begins. It runs until its standard input is closed, by the process that
started it or by the end of that process. Then it prints its counts, because an attack without effect proves
nothing.
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

# In reality the attacker's cost falls on another machine. Here the attacker yields to processes that would not
# share a machine with it. The attack is still made completely, as each report shows.
_NICENESS = 10

Report = dict[str, Any]


@dataclass
class Order:
    """An attacker's orders: the target, the source address, and other parameters."""

    address: str
    source: str = "127.0.0.9"
    count: int = 0
    token: str = ""
    namespace: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def begins(self) -> None:
        """Announces that the attack begins now.

        The waiting test must observe its first moment.
        """
        print("ready", flush=True)

    def is_through(self) -> None:
        """Announces that the attack has made each of its attempts once.

        See `Attack.through`.
        """
        print("through", flush=True)


Act = Callable[[Order], Awaitable[Report]]


@dataclass
class Attack:
    """A running attack, and its report once it has ended."""

    process_id: int
    output: asyncio.StreamReader
    report: Report = field(default_factory=dict)

    async def through(self) -> None:
        """Returns when the attack has made each of its attempts once.

        Only attacks that call `is_through` announce this.
        """
        async with within(60):
            line = await self.output.readline()
        assert line == b"through\n", line


@asynccontextmanager
async def attacking(module: str, name: str, **order: Any) -> AsyncIterator[Attack]:
    """Runs an attack until the end of the block.

    `order` are the fields of an `Order`.
    """
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
            # The output may begin with a `through` line that no test has read.
            attack.report = json.loads((await process.stdout.read()).splitlines()[-1])


def run(attacks: Mapping[str, Act]) -> None:
    """Runs the attack that the first argument names.

    The first line of standard input is its `Order`.
    """
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
