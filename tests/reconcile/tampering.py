"""Changes to the answers of a cluster, and the number of objects that the server could then not read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pilothouse_server.kubernetes.left_out import LEFT_OUT
from pilothouse_server.kubernetes.transport import ClusterTransport
from pilothouse_server.kubernetes.watch_stream import split_lines


def tampering(monkeypatch: pytest.MonkeyPatch, change: Callable[[bytes], bytes]) -> None:
    """Changes the bodies and watch lines that the cluster's client receives."""
    request = ClusterTransport.request

    async def requested(self: ClusterTransport, *arguments: Any, **named: Any) -> bytes:
        return change(await request(self, *arguments, **named))

    async def split(*arguments: Any) -> Any:
        async for line in split_lines(*arguments):
            yield change(line)

    monkeypatch.setattr(ClusterTransport, "request", requested)
    monkeypatch.setattr("pilothouse_server.kubernetes.client.split_lines", split)


async def left_out(kind: str) -> float:
    """The number of objects of this kind that could not be read."""
    count: float = LEFT_OUT.labels(kind)._value.get()
    return count
