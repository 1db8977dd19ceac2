"""Runs the `pilothouse` command in processes forked from one that has loaded it.

Tests call `run` and `start`. The other side is this module as a program. It loads the command and forks a process for
each message. The forked process takes over the arguments, environment, directory and standard streams of the message,
and is the command from then on. Before the fork, only `--version` and `contexts list` have run. Loading the command
again takes three times as long as the work of most tests.

Servers are also forked from a process that has loaded the server, which takes a second of a core. No part of the server
ran, no thread was started, and gRPC is not initialized. These servers are `reduced`. Tests of the start itself start
the server as its users do.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# The limit for one message, which contains the arguments of a command and its environment.
_MOST_BYTES = 1 << 20


class LoadedCommand:
    """A process that has loaded the command; `end` stops it."""

    def __init__(self, *, with_server: bool = False) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), *(["server"] if with_server else [])],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=ROOT,
                # The process ends when the socket closes; Ctrl-C is for the tests.
                start_new_session=True,
            )

    async def run(
        self, words: Sequence[str], environment: Mapping[str, str], given: bytes, folder: str = ""
    ) -> tuple[int, bytes, bytes]:
        """Runs a command to its end, and returns its exit code, output and errors.

        It runs in the given directory, or in that of the tests. It is killed if this task is cancelled.
        """
        asked = {"words": [*words], "environment": {**environment}, "folder": folder or os.getcwd()}
        (stdin, ours), (output, stdout), (errors, stderr), (told, telling) = (os.pipe() for _ in range(4))
        theirs = [stdin, stdout, stderr, telling]
        try:
            socket.send_fds(self._socket, [json.dumps(asked).encode()], theirs)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        giving = asyncio.create_task(asyncio.to_thread(_give, ours, given))
        outputs = [asyncio.ensure_future(_read(each)) for each in (output, errors)]
        process_id = 0
        try:
            async with _stream(told) as stream:
                process_id = int(await stream.readline())
                code = int(await stream.readline())
            shown, complained = await asyncio.gather(*outputs)
            return code, shown, complained
        except BaseException:
            if process_id:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process_id, signal.SIGKILL)
            raise
        finally:
            # The other ends of the pipes are closed by now.
            await asyncio.gather(giving, *outputs, return_exceptions=True)

    async def start(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        module: str,
        errors: int | None,
        given: int | None = None,
    ) -> StartedCommand:
        """Starts a command, or a module in its place.

        Its input comes from the descriptor `given`, if there is one, which is closed. Its errors go to the descriptor
        `errors`, or to its output.
        """
        asked = {"words": [*words], "environment": {**environment}, "folder": str(ROOT), "module": module}
        stdin = os.open(os.devnull, os.O_RDONLY) if given is None else given
        (output, stdout), (told, telling) = os.pipe(), os.pipe()
        try:
            socket.send_fds(
                self._socket, [json.dumps(asked).encode()], [stdin, stdout, errors or stdout, telling]
            )
        finally:
            for descriptor in (stdin, stdout, telling):
                os.close(descriptor)
        # Each pipe is closed at its end, which is always read.
        printed, _ = await _opened(output)
        ending, _ = await _opened(told)
        return StartedCommand(int(await ending.readline()), printed, ending)

    def end(self) -> None:
        """Stops the process and waits for it."""
        self._socket.close()
        self._process.wait()


class StartedCommand:
    """A running command: the part of asyncio's subprocess API that tests of servers use.

    The caller must read its output to the end.
    """

    def __init__(self, process_id: int, stdout: asyncio.StreamReader, ending: asyncio.StreamReader) -> None:
        self.pid = process_id
        self.stdout = stdout
        self._code = asyncio.create_task(ending.readline(), name=f"end of process {process_id}")

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal. Raises ProcessLookupError if the command has ended."""
        if self._code.done():
            raise ProcessLookupError
        os.kill(self.pid, number)

    def terminate(self) -> None:
        """Requests an end. Raises ProcessLookupError if the command has ended."""
        self.send_signal(signal.SIGTERM)

    async def kill(self) -> None:
        """Kills the command if it runs, and waits for its end; its output is dropped."""
        with contextlib.suppress(ProcessLookupError):
            self.send_signal(signal.SIGKILL)
        await asyncio.gather(self.wait(), self.stdout.read())

    async def wait(self) -> int:
        """Returns the exit code, or minus the number of the signal that killed it, once it has ended."""
        return int(await asyncio.shield(self._code))


@contextlib.asynccontextmanager
async def _stream(descriptor: int) -> AsyncIterator[asyncio.StreamReader]:
    """Yields a reader of a pipe."""
    stream, transport = await _opened(descriptor)
    try:
        yield stream
    finally:
        transport.close()


async def _opened(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(descriptor, "rb", buffering=0)
    )
    return stream, transport


def _give(descriptor: int, given: bytes) -> None:
    """Writes all bytes, or as many as are read."""
    with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as pipe:
        pipe.write(given)


async def _read(descriptor: int) -> bytes:
    async with _stream(descriptor) as stream:
        return bytes(await stream.read())


# These verbs import the server, which takes a second of a core.
_VERBS_OF_SERVER = ("backup", "database", "keys", "migrate", "reset-password", "restore", "serve")
_loaded: list[LoadedCommand] = []
_loaded_servers: list[LoadedCommand] = []


async def run(
    words: Sequence[str], environment: Mapping[str, str], given: bytes = b"", folder: str = ""
) -> tuple[int, bytes, bytes]:
    """Runs a command, in a directory if one is named; the first call starts the process that loads it."""
    of_server = bool(words) and words[0] in _VERBS_OF_SERVER
    return await _process(with_server=of_server).run(words, environment, given, folder)


async def start(
    words: Sequence[str],
    environment: Mapping[str, str],
    module: str = "",
    errors: int | None = None,
    given: int | None = None,
) -> StartedCommand:
    """Starts a server command, or a module in its place; the first call starts the process that loads it.

    Errors go to the descriptor `errors`, else to the output. Input comes from `given`, if there is one.
    """
    return await _process(with_server=True).start(words, environment, module, errors, given)


def _process(*, with_server: bool) -> LoadedCommand:
    kept = _loaded_servers if with_server else _loaded
    if not kept:
        kept.append(LoadedCommand(with_server=with_server))
    return kept[0]


def end() -> None:
    """Ends the processes that have loaded the command."""
    for each in (_loaded, _loaded_servers):
        while each:
            each.pop().end()


def _load(*, with_server: bool) -> Callable[[], None]:
    """Imports the whole command, including the modules that its parser loads on first use; returns its entry point."""
    # The entry point sets this before it loads the library.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from pilothouse_client import cli, commands

    # Groups load the modules of their verbs when they are called.
    for module in pkgutil.iter_modules(commands.__path__):
        importlib.import_module(f"pilothouse_client.commands.{module.name}")
    # The file does not exist, so no contexts are listed. The first parsed command line loads the rest of the parser.
    os.environ["PILOTHOUSE_CONFIG"] = str(ROOT / "nobody.json")
    for words in (["--version"], ["contexts", "list"]):
        with contextlib.suppress(SystemExit):
            cli.app(words)
    if with_server:
        importlib.import_module("pilothouse_server.app")
        importlib.import_module("pilothouse_server.cli.server")
        importlib.import_module("tests.reduced").reduce()
    return cli.main


def _serve(asking: socket.socket) -> str | None:
    """Forks a process for each message, and reports how it ended.

    In a forked process, returns the module to run, or '' for the command. Returns None at the end.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(asking, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not asking:
                    selector.unregister(key.fileobj)
                    _tell(key.fd, *key.data)
                    continue
                message, descriptors, _, _ = socket.recv_fds(asking, _MOST_BYTES, 4)
                if not message:
                    return None
                process_id = os.fork()
                if not process_id:
                    return _become(json.loads(message), descriptors)
                *streams, telling = descriptors
                for descriptor in streams:
                    os.close(descriptor)
                with contextlib.suppress(BrokenPipeError):
                    os.write(telling, b"%d\n" % process_id)
                ended = os.pidfd_open(process_id)
                selector.register(ended, selectors.EVENT_READ, (process_id, telling))


def _tell(ended: int, process_id: int, telling: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        os.write(telling, b"%d\n" % code)
    for descriptor in (ended, telling):
        os.close(descriptor)


def _become(asked: Mapping[str, Any], descriptors: Sequence[int]) -> str:
    """Takes over the environment of a command; returns the module to run, if any."""
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.argv = ["pilothouse", *asked["words"]]
    # Otherwise all forked processes would draw the same random numbers.
    random.seed()
    return str(asked.get("module", ""))


def _end(main: Callable[[], None]) -> None:
    """Runs the command and ends without finalizing modules, which would copy the shared memory."""
    try:
        main()
        code: object = None
    except SystemExit as end:
        code = end.code
    if code is not None and not isinstance(code, int):
        sys.exit(code)  # type: ignore[arg-type]
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        sys.exit(code)
    os._exit(code or 0)


def _main() -> None:
    main = _load(with_server="server" in sys.argv[2:])
    gc.collect()
    # Keeps the garbage collector from writing to memory that is shared with the forked processes.
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as asking:
        module = _serve(asking)
    if module:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    elif module is not None:
        _end(main)


if __name__ == "__main__":
    _main()
