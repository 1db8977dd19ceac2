"""Processes of a measurement, and the protocol between them: a line of JSON each way.

    child = await Child.start("benchmarks.loads.calls", environment, cores)
    answer = await child.ask("run", seconds=2.0)

The other side is a module that ends in `answering({"run": run, ...})`. Each handler is an async function that takes
keyword arguments and returns a value that JSON can represent. A child ends when its standard input is closed, so no
child outlives its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from benchmarks.machine import pin

Handler = Callable[..., Awaitable[Any]]
_LONGEST_ANSWER = 64 << 20


class ChildFailed(RuntimeError):
    """A process of the measurement ended, or reports that a request failed."""


class Child:
    """A running child process; `stop` ends it."""

    def __init__(self, module: str, process: asyncio.subprocess.Process) -> None:
        self._module = module
        self._process = process

    @classmethod
    async def start(
        cls, module: str, environment: Mapping[str, str], cores: frozenset[int] = frozenset()
    ) -> Child:
        """Starts `python -m module` on these cores."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_ANSWER,
        )
        pin(process.pid, cores)
        child = cls(module, process)
        await child.ask("ready")
        return child

    @property
    def process_id(self) -> int:
        """The child's process id."""
        return self._process.pid

    async def ask(self, name: str, /, **arguments: Any) -> Any:
        """Sends a request to the child, and returns its response.

        Raises:
                ChildFailed: the child ended, or its handler raised.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(orjson.dumps([name, arguments]) + b"\n")
        await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            raise ChildFailed(f"{self._module} ended with {await self._process.wait()}")
        answer = orjson.loads(line)
        if "error" in answer:
            raise ChildFailed(f"{self._module}: {answer['error']}")
        return answer["answer"]

    async def stop(self) -> None:
        """Ends the child; safe to call twice."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(15):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def answering(handlers: Mapping[str, Handler]) -> None:
    """Serves requests in the child until standard input ends. Handlers that print write to standard error."""
    asyncio.run(_answer(handlers))


async def _answer(handlers: Mapping[str, Handler]) -> None:
    out, sys.stdout = sys.stdout, sys.stderr
    reader = asyncio.StreamReader(limit=_LONGEST_ANSWER)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    # Existing objects are not collected again and again: the pauses would be the measurement's, not the product's.
    gc.collect()
    gc.freeze()
    while line := await reader.readline():
        name, arguments = orjson.loads(line)
        try:
            said = {"answer": None if name == "ready" else await handlers[name](**arguments)}
        except Exception as error:  # noqa: BLE001 - the parent receives the error and raises it
            said = {"error": f"{type(error).__name__}: {error}"}
        out.write(orjson.dumps(said).decode() + "\n")
        out.flush()
