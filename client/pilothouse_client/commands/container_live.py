"""`pilothouse containers logs` and `exec`: what goes on inside a container right now."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands.container_columns import ContainerName
from pilothouse_client.commands.container_terminal import raw_terminal, terminal_size
from pilothouse_client.commands.failures import CommandError, exit_code_of
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import Namespace, Selector, namespace_or_default
from pilothouse_client.commands.times import parse_time, to_timestamp

_CHUNK_BYTES = 16 * 1024
_CODE_OF_PROBLEM = {"CLUSTER_REFUSED": "FAILED_PRECONDITION", "CLUSTER_UNAVAILABLE": "UNAVAILABLE"}


def add_to(app: typer.Typer) -> None:
    """Adds the verbs to the group."""
    app.command("logs")(logs)
    app.command("exec", context_settings={"ignore_unknown_options": True})(execute)


def logs(
    name: Annotated[str, typer.Argument(help="Name of the container; or use --selector.")] = "",
    namespace: Namespace = "",
    selector: Selector = "",
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is written later.")] = False,
    previous: Annotated[bool, typer.Option("--previous", help="Of the run before the last restart.")] = False,
    tail: Annotated[
        int, typer.Option("--tail", min=-1, help="Only the last lines of each pod; -1: all.")
    ] = -1,
    since: Annotated[
        str, typer.Option("--since", help="Only what is newer: a time, or how long ago, such as 5m.")
    ] = "",
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Show when each line was written.")
    ] = False,
    pod: Annotated[str, typer.Option("--pod", help="Only this pod.")] = "",
    init_container: Annotated[str, typer.Option("--init-container", help="Of this init container.")] = "",
    prefix: Annotated[
        bool | None,
        typer.Option(
            "--prefix/--no-prefix",
            help="Begin each line with CONTAINER/POD; by default with --selector, and where there are several pods.",
        ),
    ] = None,
) -> None:
    """Show the log of a container, or of several; after a cut a followed one goes on without duplicates.

    Of several logs those that can be read are shown; the others are named on standard error, and the exit code is then
    7, or 9 where the cluster fails.
    """
    request: dict[str, Any] = {
        "namespace": namespace_or_default(namespace),
        "name": name,
        "label_selector": selector,
        "follow": follow,
        "previous": previous,
        "pod": pod,
        "init_container": init_container,
    }
    if tail >= 0:
        request["tail_lines"] = tail
    if since:
        request["since_time"] = to_timestamp(parse_time(since, "--since"))
    many, exit_code = bool(selector), 0
    with connect() as client, client.containers.stream_logs(**request) as answers:
        for answer in answers:
            many = many or answer.pods > 1
            for entry in answer.entries:
                named = many if prefix is None else prefix
                sys.stdout.buffer.write(_shown(entry, timestamps=timestamps, named=named))
            sys.stdout.buffer.flush()
            for problem in answer.problems:
                does = "waiting for" if follow else "error:"
                typer.echo(f"{does} {problem.container}/{problem.pod}: {problem.message}", err=True)
                exit_code = exit_code or exit_code_of(_CODE_OF_PROBLEM.get(problem.reason, ""))
    raise typer.Exit(0 if follow else exit_code)


def _shown(entry: pb.LogEntry, *, timestamps: bool, named: bool) -> bytes:
    parts = [f"{entry.container}/{entry.pod}".encode()] if named else []
    parts += [entry.timestamp.ToJsonString().encode()] if timestamps else []
    return b" ".join([*parts, entry.line]) + b"\n"


def execute(
    name: ContainerName,
    command: Annotated[list[str], typer.Argument(help="The program and its arguments, after --.")],
    namespace: Namespace = "",
    stdin: Annotated[bool, typer.Option("-i", "--stdin", help="Send standard input.")] = False,
    tty: Annotated[bool, typer.Option("-t", "--tty", help="Give the program a terminal.")] = False,
    pod: Annotated[str, typer.Option("--pod", help="In this pod; default the newest that is ready.")] = "",
    record: Annotated[
        bool, typer.Option("--record", help="Keep input and output in the audit record.")
    ] = False,
) -> None:
    """Run a program in a container; ends with its exit code. -it gives a terminal."""
    if tty and not sys.stdin.isatty():
        raise CommandError("--tty needs a terminal")
    start = pb.ExecStart(
        namespace=namespace_or_default(namespace),
        name=name,
        pod=pod,
        command=command,
        stdin=stdin,
        tty=tty,
        record_content=record,
    )
    keyboard = _Input(start, read=stdin)
    try:
        with (
            connect() as client,
            raw_terminal(keyboard.resized) if tty else contextlib.nullcontext(),
            client.containers.exec(keyboard) as answers,
        ):
            result = _show_output(answers)
    finally:
        keyboard.end()
    if result is None:
        raise CommandError("the server ended the program's output without its result")
    if result.message:
        typer.echo(f"error: {result.message}", err=True)
    raise typer.Exit(result.exit_code if 0 <= result.exit_code <= 255 else 1)


def _show_output(answers: Iterator[pb.ExecResponse]) -> pb.ExecResult | None:
    from pilothouse_client import PilothouseError

    for answer in answers:
        match answer.WhichOneof("output"):
            case "stdout":
                sys.stdout.buffer.write(answer.stdout)
                sys.stdout.buffer.flush()
            case "stderr":
                sys.stderr.buffer.write(answer.stderr)
                sys.stderr.buffer.flush()
            case "result":
                # The last answer. The call is the server's to end: hung up on, it would be one that was broken off.
                with contextlib.suppress(PilothouseError):
                    next(answers, None)
                return answer.result
    return None


class _Input:
    """The requests of an exec: the start, then what is typed and how the terminal changes, as it comes."""

    def __init__(self, start: pb.ExecStart, *, read: bool) -> None:
        size = terminal_size() if start.tty else None
        if size is not None:
            start.terminal_size.CopyFrom(size)
        self._queue: queue.Queue[pb.ExecRequest | None] = queue.Queue(64)
        self._ended = threading.Event()
        self._queue.put(pb.ExecRequest(start=start))
        if read:
            # A daemon, because a read from a terminal cannot be interrupted.
            threading.Thread(target=self._read, daemon=True).start()
        elif not start.tty:
            self._queue.put(pb.ExecRequest(close_stdin=True))

    def __iter__(self) -> Iterator[pb.ExecRequest]:
        while not self._ended.is_set() and (request := self._queue.get()) is not None:
            yield request

    def end(self) -> None:
        """Ends the requests, whatever still waits to be sent. Never waits: of a full queue nobody may take any more."""
        self._ended.set()
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)

    def resized(self) -> None:
        """Tells the terminal's new size. Called by a handler of a signal: the main thread must not use the queue
        meanwhile, or it would wait for itself."""
        with contextlib.suppress(queue.Full, OSError):
            if (size := terminal_size()) is not None:
                self._queue.put_nowait(pb.ExecRequest(resize=size))

    def _read(self) -> None:
        # A terminal that has hung up answers with an error: then the input is over, too.
        with contextlib.suppress(OSError):
            while data := os.read(sys.stdin.fileno(), _CHUNK_BYTES):
                self._queue.put(pb.ExecRequest(stdin=data))
        self._queue.put(pb.ExecRequest(close_stdin=True))
