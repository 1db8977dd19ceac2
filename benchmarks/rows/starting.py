"""Row 17: the CPU time of the `pilothouse` command, which users wait for a hundred times a day.

Each figure is a whole process: the sum of its system and user time, as the kernel counts them for ended children. The
baseline imports gRPC and the stub of containers, which every client needs.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping

from benchmarks.measure import Figure, Goal, compared, in_turns
from benchmarks.product import COMMAND
from benchmarks.testbed import Testbed

_BASELINE = (sys.executable, "-c", "import grpc; from pilothouse.container.v1 import container_pb2")
_COMPLETION = {
    "_PILOTHOUSE_COMPLETE": "bash_complete",
    "COMP_WORDS": "pilothouse containers get ",
    "COMP_CWORD": "3",
}


def _used(words: tuple[str, ...], environment: Mapping[str, str]) -> float:
    """Returns the seconds of CPU time of a process. No other child may end while it runs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, env=dict(environment), stdout=subprocess.DEVNULL, check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def command(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 17: help, an everyday command and a completion, each against the imports of a client."""
    async with (
        testbed.database(testbed.scale.containers[0]) as database,
        testbed.product(database) as product,
    ):
        own = {
            **testbed.environment,
            "PILOTHOUSE_SERVER": product.address,
            "PILOTHOUSE_TOKEN": await product.tenant_token(),
            "PILOTHOUSE_CONFIG": str(testbed.directory / "config.json"),
        }
        pilothouse = COMMAND[:1]
        listed = (*pilothouse, "containers", "list", "--limit", "10")
        measured: tuple[tuple[str, tuple[str, ...], Mapping[str, str], Goal | None], ...] = (
            ("processor time of `pilothouse --help`", (*pilothouse, "--help"), {}, None),
            ("processor time of `pilothouse containers list`", listed, {}, ("≤", 1.4)),
            ("processor time of the completion of a name", pilothouse, _COMPLETION, None),
        )
        for what, words, more, goal in measured:

            async def used(words: tuple[str, ...] = words, more: Mapping[str, str] = more) -> float:
                return await asyncio.to_thread(_used, words, {**own, **more})

            async def imported() -> float:
                return await asyncio.to_thread(_used, _BASELINE, own)

            pairs = await in_turns(used, imported, testbed.scale.runs, warm=testbed.scale.warm)
            yield compared("17", what, "s", pairs, "import grpc and a stub", goal)
