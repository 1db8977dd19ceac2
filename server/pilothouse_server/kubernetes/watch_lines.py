"""Lines of a chunked stream, of any length, without a quadratic search.

The client library's watch reads lines with a buffer limit of 4 MiB and turns a longer one into an error that repeats
for ever. Here a line may be as long as an object can be with all its history of managed fields, and more.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

from pilothouse_server.kubernetes.errors import Unreachable

# etcd keeps objects of 1.5 MiB by default, rarely more than 8; beyond this it is no watch.
LINE_LIMIT = 64 * 1024 * 1024


async def split_lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Whole lines without their end; empty ones are skipped, and so is a last one that was cut off.

    Raises Unreachable for a line over LINE_LIMIT bytes.
    """
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            parts.append(chunk[start:end])
            line = b"".join(parts) if len(parts) > 1 else parts[0]
            parts, size, start = [], 0, end + 1
            if line.strip():
                yield line
        if start < len(chunk):
            parts.append(chunk[start:])
            size += len(chunk) - start
            if size > LINE_LIMIT:
                raise Unreachable(f"a line of a watch is longer than {LINE_LIMIT} bytes")
