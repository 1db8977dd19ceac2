"""`pilothouse` without admission, or without a part of it: see `injected_fault`."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from importlib import import_module
from typing import TypeVar

import grpc.aio

from pilothouse_server.flowcontrol.burst_gate import BurstGate
from pilothouse_server.flowcontrol.fair_queue import FairQueue
from pilothouse_server.flowcontrol.pending_requests import PendingRequests
from pilothouse_server.metrics import service
from pilothouse_server.rpc import pipeline, server
from pilothouse_server.store.paging import PageRequest
from tests.promises.hostile.fault_injection import run

T = TypeVar("T")
# The former default.
_MOST_CALLS = 2000


def one_line() -> None:
    """Serves the calls of all addresses through one listener shard."""
    server.shard_count = lambda _settings: 1  # type: ignore[assignment, attr-defined]


def one_number_for_all() -> None:
    """Gives every caller unlimited seats and time.

    Only the number of calls that gRPC counts is limited, for each of its servers.
    """
    one_line()
    FairQueue.try_acquire = lambda *_: True  # type: ignore[method-assign]
    FairQueue.release = lambda *_: None  # type: ignore[method-assign]
    PendingRequests.receive = _whenever  # type: ignore[method-assign, assignment]
    grpc.aio.server = partial(grpc.aio.server, maximum_concurrent_rpcs=_MOST_CALLS)


def calls_served_as_they_come() -> None:
    """Serves each call as soon as gRPC hands it over.

    The calls of all addresses are served in their order of arrival.
    """
    one_line()
    BurstGate.passes = lambda *_: True  # type: ignore[method-assign]


def wide_pages_side_by_side() -> None:
    """Lets wide pages run concurrently, each with one seat.

    They also encode rows in one piece, without their turns on the event loop.
    """
    service.is_wide = lambda _rows: False  # type: ignore[assignment, attr-defined]
    pipeline.is_wide = lambda _page_size: False  # type: ignore[assignment, attr-defined]
    PageRequest.is_wide = False  # type: ignore[assignment, method-assign]
    pipeline.seats_for = lambda _page_size, _request_bytes: 1  # type: ignore[assignment, attr-defined]


def large_requests_side_by_side() -> None:
    """Lets large requests run concurrently, each with one seat.

    They are also validated in one piece.
    """
    pipeline.is_large = lambda _request_bytes: False  # type: ignore[assignment, attr-defined]
    pipeline.seats_for = lambda _page_size, _request_bytes: 1  # type: ignore[assignment, attr-defined]
    # The package also has a function with this name.
    layer = import_module("pilothouse_server.rpc.interceptors.validation")
    layer.is_long = lambda _message: False  # type: ignore[attr-defined]


async def _whenever(_bodies: PendingRequests, body: Awaitable[T], _key: object) -> T:
    return await body


INJECTED_FAULTS = {
    made.__name__: made
    for made in (
        one_number_for_all,
        calls_served_as_they_come,
        wide_pages_side_by_side,
        large_requests_side_by_side,
    )
}

if __name__ == "__main__":
    run(INJECTED_FAULTS)
