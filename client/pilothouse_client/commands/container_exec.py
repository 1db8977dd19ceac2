"""`pilothouse containers exec`: a program in a container, and the terminal that -it gives it.

The terminal is raw while the program has it: each key, also ^C, goes to the program as it is pressed, and nothing is
echoed locally. A raw terminal is hardly usable afterwards, so it is always restored: after the command's end, after an
error, and after signals that would end the process immediately. These signals raise SystemExit, which closes the call
as any error does, with the exit code 128 + the signal, as in shells.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import verbs
from pilothouse_client.commands.container_columns import ContainerName, ProgramName
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import Namespace, namespace_or_default
from pilothouse_client.commands.terminal import say, write_program_output

_CHUNK_BYTES = 16 * 1024
_GREATEST_SIDE = 10_000


def execute(
    name: ContainerName,
    command: Annotated[list[str], verbs.Argument(help="The program and its arguments, after --.")],
    namespace: Namespace = "",
    stdin: Annotated[bool, verbs.Option("-i", "--stdin", help="Send standard input.")] = False,
    tty: Annotated[bool, verbs.Option("-t", "--tty", help="Give the program a terminal.")] = False,
    pod: Annotated[str, verbs.Option("--pod", help="In this pod; default the newest that is ready.")] = "",
    program: ProgramName = "",
    record: Annotated[
        bool, verbs.Option("--record", help="Store input and output in the audit record.")
    ] = False,
) -> None:
    """Run a program in a container and exit with its exit code. -it gives a terminal."""
    if tty and not sys.stdin.isatty():
        raise CommandError("--tty needs a terminal")
    start = pb.ExecStart(
        namespace=namespace_or_default(namespace),
        name=name,
        pod=pod,
        program=program,
        command=command,
        stdin=stdin,
        tty=tty,
        record_content=record,
    )
    keyboard = _Input(start, read=stdin)
    try:
        with (
            connect() as client,
            _raw_terminal(keyboard.resized) if tty else contextlib.nullcontext(),
            client.containers.exec(keyboard) as answers,
        ):
            result = _show_output(answers)
    finally:
        keyboard.end()
    if result is None:
        raise CommandError("the server ended the program's output without its result")
    if result.message:
        say(f"error: {result.message}", err=True)
    raise verbs.Exit(result.exit_code if 0 <= result.exit_code <= 255 else 1)


def _show_output(answers: Iterator[pb.ExecResponse]) -> pb.ExecResult | None:
    from pilothouse_client import PilothouseError

    for answer in answers:
        match answer.WhichOneof("output"):
            case "stdout":
                write_program_output(answer.stdout)
            case "stderr":
                write_program_output(answer.stderr, err=True)
            case "result":
                # This is the last response. The server must end the call: if the client closed it, the call would
                # count as cancelled.
                with contextlib.suppress(PilothouseError):
                    next(answers, None)
                return answer.result
    return None


class _Input:
    """The requests of an exec: the start, then typed bytes and changes of the terminal's size, as they come."""

    def __init__(self, start: pb.ExecStart, *, read: bool) -> None:
        size = _terminal_size() if start.tty else None
        if size is not None:
            start.terminal_size.CopyFrom(size)
        self._queue: queue.Queue[pb.ExecRequest | None] = queue.Queue(64)
        self._ended = threading.Event()
        self._queue.put(pb.ExecRequest(start=start))
        if read:
            # A daemon thread, because a read from a terminal cannot be interrupted.
            threading.Thread(target=self._read, daemon=True).start()
        elif not start.tty:
            self._queue.put(pb.ExecRequest(close_stdin=True))

    def __iter__(self) -> Iterator[pb.ExecRequest]:
        while not self._ended.is_set() and (request := self._queue.get()) is not None:
            yield request

    def end(self) -> None:
        """Ends the requests, even if some still wait to be sent.

        It never blocks, because a full queue may no longer have a reader.
        """
        self._ended.set()
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)

    def resized(self) -> None:
        """Sends the terminal's new size.

        A signal handler calls it. The main thread must not use the queue at that time, or it would deadlock.
        """
        with contextlib.suppress(queue.Full, OSError):
            if (size := _terminal_size()) is not None:
                self._queue.put_nowait(pb.ExecRequest(resize=size))

    def _read(self) -> None:
        # Reading from a terminal that has hung up raises an error: the input has ended then, too.
        with contextlib.suppress(OSError):
            while data := os.read(sys.stdin.fileno(), _CHUNK_BYTES):
                self._queue.put(pb.ExecRequest(stdin=data))
        self._queue.put(pb.ExecRequest(close_stdin=True))


def _terminal_size() -> pb.TerminalSize | None:
    """Returns the size of the terminal that is standard input.

    None if it reports none.

    COLUMNS and LINES do not count, because they do not change with the terminal.
    """
    columns, rows = os.get_terminal_size(sys.stdin.fileno())
    if not columns or not rows:
        return None
    return pb.TerminalSize(width=min(columns, _GREATEST_SIDE), height=min(rows, _GREATEST_SIDE))


@contextlib.contextmanager
def _raw_terminal(on_resize: Callable[[], None]) -> Iterator[None]:
    """Makes the terminal raw, calls `on_resize` when its size changes, and restores the terminal at the end."""
    # Imported here, because other systems have neither these modules nor these signals.
    import termios
    import tty

    ending = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    ended = False

    def restore() -> None:
        # TCSANOW does not wait for pending output: a terminal that has hung up or stopped no longer accepts any.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)

    def end(number: int, _frame: object) -> None:
        nonlocal ended
        restore()
        # A second signal must not interrupt the cleanup that the first one has begun.
        if not ended:
            ended = True
            raise SystemExit(128 + number)

    handlers: dict[signal.Signals, Any] = {signal.SIGWINCH: lambda *_: on_resize()}
    # Ignored signals stay ignored, because `nohup` depends on that.
    handlers |= {number: end for number in ending if signal.getsignal(number) is not signal.SIG_IGN}
    previous: dict[signal.Signals, Any] = {}
    try:
        for number, handler in handlers.items():
            previous[number] = signal.signal(number, handler)
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        restore()
        for number, handler in previous.items():
            signal.signal(number, handler)
