"""The log of a container of a pod, as lines.

Logs are requested with timestamps, so every line has a position from which an interrupted log resumes. `sinceTime`
counts whole seconds only, so the caller drops lines that it has seen.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from datetime import UTC, datetime

import msgspec

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.objects import PODS
from pilothouse_server.runtime.event_loop import Share

LONGEST_LINE = 256 * 1024
_NANOSECONDS = 1_000_000_000


class LogLine(msgspec.Struct, frozen=True):
    """One line: nanoseconds since 1970 in UTC, and its bytes without the end."""

    nanoseconds: int
    text: bytes


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Selection of lines of a log. `follow`: also later ones; `previous`: those of the run before this one.

    `since_nanoseconds` is a time by the cluster's clock, `since_seconds` an age, independent of clocks.
    """

    follow: bool = False
    previous: bool = False
    since_nanoseconds: int | None = None
    since_seconds: int | None = None
    tail_lines: int | None = None

    def query(self) -> dict[str, str]:
        """Returns the parameters of the request."""
        query = {"follow": "true"} if self.follow else {}
        if self.previous:
            query["previous"] = "true"
        if self.since_nanoseconds is not None:
            since = datetime.fromtimestamp(self.since_nanoseconds // _NANOSECONDS, UTC)
            query["sinceTime"] = since.strftime("%Y-%m-%dT%H:%M:%SZ")
        elif self.since_seconds is not None:
            query["sinceSeconds"] = str(max(1, self.since_seconds))
        if self.tail_lines is not None:
            query["tailLines"] = str(self.tail_lines)
        return query


async def pod_log(
    client: ClusterClient, namespace: str, pod: str, *, container: str, options: LogOptions
) -> AsyncGenerator[LogLine, None]:
    """Yields the lines of one container of a pod, in order; with `follow` until it ends.

    A line over 256 KiB is cut. Raises ClusterError: Refused if there is no such log (yet), Unreachable
    if the connection breaks.
    """
    query = {"container": container, "timestamps": "true", **options.query()}
    path = f"{PODS.path(namespace, pod)}/log"
    async with client.streaming(path, query, idle_seconds=None if options.follow else 60.0) as response:
        async for line in _lines(response.content.iter_any()):
            yield line


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[LogLine]:
    """Yields whole lines; also a last one that is still being written when the stream ends."""
    pending, share = bytearray(), Share()
    async for chunk in chunks:
        pending += chunk
        while (end := pending.find(b"\n")) >= 0:
            # One chunk may hold as many lines as it has bytes.
            await share.used()
            yield _line(bytes(pending[:end]))
            del pending[: end + 1]
        if len(pending) > 2 * LONGEST_LINE:
            # The rest of an over-long line has no timestamp of its own and would look like other lines: it is dropped.
            del pending[LONGEST_LINE + 64 :]
    if pending:
        yield _line(bytes(pending))


def _line(raw: bytes) -> LogLine:
    stamp, _, text = raw.partition(b" ")
    nanoseconds = parse_nanoseconds(stamp.decode("ascii", "replace"))
    if nanoseconds is None:
        return LogLine(0, raw[:LONGEST_LINE])
    return LogLine(nanoseconds, text[:LONGEST_LINE])


def parse_nanoseconds(stamp: str) -> int | None:
    """Parses an RFC 3339 time with up to nine digits of a second; returns None for any other text."""
    whole, _, rest = stamp.partition(".")
    digits = rest.rstrip("Z") if rest else ""
    try:
        second = datetime.fromisoformat((whole if rest else whole.rstrip("Z")) + "+00:00")
        fraction = int(digits.ljust(9, "0")[:9]) if digits else 0
    except ValueError:
        return None
    return int(second.timestamp()) * _NANOSECONDS + fraction
