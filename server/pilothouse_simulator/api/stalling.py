"""Requests while the storage behind the API server is unresponsive.

As recorded, requests that the watch cache can serve (resourceVersion 0) still succeed, and a watch stays open without
sending anything. All other requests wait for their `timeout`, or 34 seconds, and then get 504. A create that got 504 is
nevertheless stored when the storage continues, because its write was in progress. An update is not stored, because it
reads first. If the storage was down, nothing is stored.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from pilothouse_simulator.api.context import ApiContext, RequestTarget
from pilothouse_simulator.api.options import boolean
from pilothouse_simulator.api.routes_write import read_body
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import ApiError

_LONGEST_SECONDS = 34.0
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(h|m(?!s)|s|ms))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def request_timeout(request: web.Request) -> float | None:
    """Returns the `timeout` of a request in seconds; None if absent. Raises ApiError 400 if it is not a duration."""
    text = request.query.get("timeout", "")
    if not text:
        return None
    if not _DURATION.fullmatch(text):
        raise api_errors.bad_request(
            f'invalid timeout specified in the request URL - time: invalid duration "{text}"'
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


async def with_storage(
    context: ApiContext,
    request: web.Request,
    target: RequestTarget,
    handle: Callable[[], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Returns the result of `handle` as soon as the storage responds, or 504 if that takes too long."""
    seconds = request_timeout(request)
    faults = context.faults
    if not faults.storage_stalled or _from_cache(request, target):
        return await handle()
    # The write may run after its request got a response, so the body must be read now.
    await read_body(request)
    creates = request.method == "POST" and not target.name
    waiting = asyncio.ensure_future(_after(faults.storage_flows(), handle))
    limit = seconds if seconds is not None else _LONGEST_SECONDS
    try:
        async with asyncio.timeout(limit / context.clock.speed):
            return await asyncio.shield(waiting)
    except TimeoutError:
        if creates and not faults.storage_stopped:
            context.late_writes.add(waiting)
            waiting.add_done_callback(context.late_writes.discard)
            waiting.add_done_callback(_forget)
        else:
            waiting.cancel()
        if seconds is None:
            message = "Timeout: request did not complete within requested timeout - context deadline exceeded"
            raise api_errors.failure(504, message, "Timeout", {}) from None
        return timed_out()
    except asyncio.CancelledError:
        waiting.cancel()
        raise


def timed_out() -> web.Response:
    """Returns the 504 of the timeout filter: a Status without kind, sent as plain text."""
    status = {
        "metadata": {},
        "status": "Failure",
        "message": "Timeout: request did not complete within the allotted timeout",
        "reason": "Timeout",
        "details": {},
        "code": 504,
    }
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    return web.Response(status=504, body=orjson.dumps(status) + b"\n", headers=headers)


def _from_cache(request: web.Request, target: RequestTarget) -> bool:
    if request.method != "GET" or target.subresource in ("log", "exec", "portforward", "proxy"):
        return request.method == "GET"
    watches = target.watch_prefix or (not target.name and boolean(request.query, "watch"))
    return bool(watches) or request.query.get("resourceVersion") == "0"


async def _after(
    flows: Awaitable[None], handle: Callable[[], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    await flows
    return await handle()


def _forget(done: asyncio.Future[web.StreamResponse]) -> None:
    """Ignores a refusal of a late write, because its request is over; raises any other error."""
    if not done.cancelled() and (error := done.exception()) is not None and not isinstance(error, ApiError):
        raise error
