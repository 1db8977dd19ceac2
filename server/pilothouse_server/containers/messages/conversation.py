"""A conversation with a program: input from the caller's stream of messages, output back, both ways at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.containers.messages.live import Transcript, ending, exec_output, exec_result
from pilothouse_server.errors import invalid
from pilothouse_server.kubernetes.exec import Ended, Program
from pilothouse_server.rpc.call import Call
from pilothouse_server.tasks import cancel_and_wait


async def conversation(
    call: Call, start: pb.ExecStart, requests: AsyncIterator[pb.ExecRequest], opened: Program
) -> AsyncGenerator[pb.ExecResponse, None]:
    """Passes input and output on, both ways at once, until the program ends."""
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
                        # What is wrong with the input ends the call; its end does not.
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
    """Refuses what goes together with nothing else of the start."""
    if start.HasField("terminal_size") and not start.tty:
        raise invalid("start.terminal_size", "is only for a terminal: set start.tty", rule="needs_tty")


async def _feed(
    start: pb.ExecStart, requests: AsyncIterator[pb.ExecRequest], opened: Program, transcript: Transcript
) -> None:
    first = True
    async for request in requests:
        match request.WhichOneof("input"):
            case "start" if not first:
                raise invalid("start", "is only for the first message")
            case "stdin" if not start.stdin:
                raise invalid("stdin", "is only taken where start.stdin is set", rule="needs_stdin")
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
