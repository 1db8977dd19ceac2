"""Archives that `tar` in a container writes or unpacks, as `kubectl cp` does it.

Paths are absolute after `-C`, and names begin with `./`, so `tar` takes none for an option. The server counts the bytes
and passes them on. The program that unpacks an archive checks the names in it: the client, or `tar` in a pod.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from pilothouse_server.errors import FailedPrecondition, ResourceExhausted
from pilothouse_server.kubernetes.exec import Ended, RunningProgram
from pilothouse_server.rpc.call import Call
from pilothouse_server.runtime.tasks import cancel_and_wait

MOST_BYTES = 16 * 1024**3
_LAST_WORDS_BYTES = 1000


def packing(path: str) -> Sequence[str]:
    """Returns the command that writes a file or folder as an archive, with names relative to the parent folder."""
    folder, name = posixpath.split(posixpath.normpath(path))
    return ("tar", "cf", "-", "-C", folder, f"./{name}")


def unpacking(folder: str) -> Sequence[str]:
    """Returns the command that unpacks an archive in a folder."""
    return ("tar", "xmf", "-", "-C", folder)


async def packed(call: Call, opened: RunningProgram) -> AsyncGenerator[bytes, None]:
    """Yields the bytes of the archive that `tar` writes in the container.

    Raises:
        FailedPrecondition: `tar` fails.
        ResourceExhausted: the archive is larger than `MOST_BYTES`.
    """
    size, words = 0, b""
    try:
        async for output in opened.output():
            if isinstance(output, Ended):
                _check(output, words)
                call.complete = True
                return
            if output.stream == "stderr":
                words = (words + output.data)[-_LAST_WORDS_BYTES:]
                continue
            size += len(output.data)
            _check_size(size)
            yield output.data
    finally:
        call.facts.metadata["bytes"] = size


async def unpacked(call: Call, parts: AsyncIterator[bytes], opened: RunningProgram) -> int:
    """Sends an archive to `tar`, and returns its size. Raises as `packed` does."""
    size = 0

    async def send() -> None:
        nonlocal size
        async for part in parts:
            size += len(part)
            _check_size(size)
            await opened.write(part)
        await opened.close_input()

    sending = asyncio.create_task(send(), name="copy to a pod")
    ending = asyncio.create_task(_end(opened), name="end of a copy")
    try:
        # An error of the input ends the call; the end of the input does not.
        await asyncio.wait({sending, ending}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not ending.done():
            sending.result()
        ended, words = await ending
        _check(ended, words)
        return size
    finally:
        await cancel_and_wait(sending, ending)
        call.facts.metadata["bytes"] = size


async def _end(opened: RunningProgram) -> tuple[Ended, bytes]:
    words = b""
    async for output in opened.output():
        if isinstance(output, Ended):
            return output, words
        words = (words + output.data)[-_LAST_WORDS_BYTES:]
    raise AssertionError("the output ends with the result, or raises")


def _check(ended: Ended, words: bytes) -> None:
    if ended.exit_code == 0:
        return
    said = ended.message or words.decode("utf-8", "replace").strip() or f"exit code {ended.exit_code}"
    raise FailedPrecondition(f"tar in the container failed: {said}", reason="COPY_FAILED")


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise ResourceExhausted(
            f"the archive has more than {MOST_BYTES} bytes: copy less at a time", reason="COPY_TOO_LARGE"
        )
