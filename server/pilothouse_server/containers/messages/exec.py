"""Passes the caller's input to a program in a pod, and its output back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.errors import invalid
from pilothouse_server.kubernetes.exec import Ended, Output, RunningProgram
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.credential_names import masked_argument
from pilothouse_server.runtime.tasks import cancel_and_wait

_KEPT_BYTES = 8 * 1024
_MOST_CHARACTERS = 2000


async def exec_answers(
    call: Call, start: pb.ExecStart, requests: AsyncIterator[pb.ExecRequest], opened: RunningProgram
) -> AsyncGenerator[pb.ExecResponse, None]:
    """Yields the output and passes the input on, concurrently, until the program ends."""
    transcript = Transcript(wanted=start.record_content)
    feeding = asyncio.create_task(_feed(start, requests, opened, transcript), name="exec input")
    outputs = opened.output()
    try:
        while True:
            output = asyncio.ensure_future(anext(outputs))
            try:
                while not output.done():
                    await asyncio.wait(
                        {output} if feeding.done() else {output, feeding}, return_when=asyncio.FIRST_COMPLETED
                    )
                    if feeding.done() and not output.done():
                        # An error of the input ends the call; the end of the input does not.
                        feeding.result()
            finally:
                if not output.done():
                    await cancel_and_wait(output)
            written = output.result()
            if isinstance(written, Ended):
                call.facts.metadata.update(ending(written))
                yield exec_result(written)
                # Most clients hang up now, before the connection to the cluster is closed.
                call.complete = True
                return
            transcript.add(written.stream, written.data)
            yield exec_output(written)
    finally:
        await cancel_and_wait(feeding)
        await outputs.aclose()
        call.facts.metadata.update(transcript.facts())


def check_start(start: pb.ExecStart) -> None:
    """Refuses contradictory fields of the start."""
    if start.HasField("terminal_size") and not start.tty:
        raise invalid("start.terminal_size", "is only for a terminal: set start.tty", rule="needs_tty")


async def _feed(
    start: pb.ExecStart,
    requests: AsyncIterator[pb.ExecRequest],
    opened: RunningProgram,
    transcript: Transcript,
) -> None:
    first = True
    async for request in requests:
        match request.WhichOneof("input"):
            case "start" if not first:
                raise invalid("start", "is only allowed in the first message")
            case "stdin" if not start.stdin:
                raise invalid("stdin", "is only allowed if start.stdin is set", rule="needs_stdin")
            case "resize" if not start.tty:
                raise invalid("resize", "is only for a terminal: set start.tty", rule="needs_tty")
            case "stdin":
                transcript.add("stdin", request.stdin)
                await opened.write(request.stdin)
            case "resize":
                await opened.resize(request.resize.width, request.resize.height)
            case "close_stdin":
                await opened.close_input()
        first = False
    await opened.close_input()


class Transcript:
    """The first bytes of a program's input and output, stored for the audit record if `wanted`."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._kept: dict[str, bytearray] = {}

    def add(self, stream: str, data: bytes) -> None:
        """Stores bytes of a stream, until it has `_KEPT_BYTES`."""
        if self._wanted:
            kept = self._kept.setdefault(stream, bytearray())
            kept += data[: max(0, _KEPT_BYTES - len(kept))]

    def facts(self) -> dict[str, str]:
        """Returns the text by stream; a replacement character stands for NUL, which PostgreSQL cannot store."""
        return {
            stream: bytes(kept).decode("utf-8", "replace").replace("\x00", "\ufffd")
            for stream, kept in self._kept.items()
        }


def exec_output(output: Output) -> pb.ExecResponse:
    """Returns the message with bytes that a program wrote."""
    if output.stream == "stdout":
        return pb.ExecResponse(stdout=output.data)
    return pb.ExecResponse(stderr=output.data)


def ending(ended: Ended) -> dict[str, int | str]:
    """Returns how a program ended, for the audit record; with -1, also why it could not be run."""
    facts: dict[str, int | str] = {"exit_code": ended.exit_code}
    if ended.message:
        # The message may repeat the command line.
        facts["message"] = masked_argument(ended.message[:_MOST_CHARACTERS])
    return facts


def exec_result(ended: Ended) -> pb.ExecResponse:
    """Returns the message with the result of a program."""
    return pb.ExecResponse(result=pb.ExecResult(exit_code=ended.exit_code, message=ended.message))
