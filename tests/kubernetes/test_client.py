"""The client against servers that misbehave: each fault once, on a real socket."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import pytest
from aiohttp import web

from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import (
    Conflict,
    Expired,
    NotFound,
    Throttled,
    Unauthorized,
    Unreachable,
)
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, PODS
from pilothouse_server.kubernetes.transport import TransportLimits
from pilothouse_server.kubernetes.watch_stream import split_lines
from tests.kubernetes import recorded_server
from tests.kubernetes.recorded_server import Handler

QUICK = TransportLimits(request_seconds=5, watch_idle_seconds=5, page_size=2)


def served(handler: Handler, limits: TransportLimits = QUICK) -> AbstractAsyncContextManager[ClusterClient]:
    """Returns a client of a server that handles all requests with `handler`."""
    return recorded_server.served(handler, limits)


def stream(*chunks: bytes, cut: bool = False) -> Handler:
    """Returns a handler that sends these chunks unchanged.

    `cut` closes the connection in the middle of the body.
    """

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if cut:
            assert request.transport is not None
            request.transport.close()
        return response

    return handler


def line(type_: str, version: int, **fields: Any) -> bytes:
    thing = {"kind": "Pod", "metadata": {"name": "p", "resourceVersion": str(version)}, **fields}
    return json.dumps({"type": type_, "object": thing}).encode() + b"\n"


async def watch(client: ClusterClient) -> list[tuple[str, str]]:
    async with aclosing(client.watch(PODS, resource_version="1")) as events:
        return [(event.type, event.resource_version) async for event in events]


async def test_lines_are_assembled_from_any_chunks() -> None:
    both = line("ADDED", 2) + line("MODIFIED", 3)
    async with served(stream(*(both[i : i + 7] for i in range(0, len(both), 7)))) as client:
        assert await watch(client) == [("ADDED", "2"), ("MODIFIED", "3")]


async def test_a_line_longer_than_four_mebibytes_is_read() -> None:
    long = line("ADDED", 2, spec={"unknown": "x" * (5 << 20)})
    async with served(stream(long, line("BOOKMARK", 3))) as client:
        assert await watch(client) == [("ADDED", "2"), ("BOOKMARK", "3")]


async def test_a_bookmark_of_pods_is_not_a_pod() -> None:
    # As a real API server writes it: an empty object of its kind, with `null` where Go has an empty list.
    bookmark = line("BOOKMARK", 3, spec={"containers": None}, status={})
    async with served(stream(line("ADDED", 2), bookmark)) as client:
        assert await watch(client) == [("ADDED", "2"), ("BOOKMARK", "3")]


async def test_a_line_cut_off_at_a_clean_end_is_ignored() -> None:
    async with served(stream(line("ADDED", 2), line("MODIFIED", 3)[:-9])) as client:
        assert await watch(client) == [("ADDED", "2")]


async def test_a_broken_connection_is_reported_after_the_events_before_it() -> None:
    broken = stream(line("ADDED", 2), line("MODIFIED", 3)[:-9], cut=True)
    async with served(broken) as client, aclosing(client.watch(PODS, resource_version="1")) as events:
        assert (await anext(events)).resource_version == "2"
        with pytest.raises(Unreachable):
            await anext(events)


async def test_an_error_event_for_an_old_version_raises_expired() -> None:
    status = {
        "kind": "Status",
        "code": 410,
        "reason": "Expired",
        "message": "too old resource version: 1 (9)",
    }
    error = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
    async with served(stream(error)) as client:
        with pytest.raises(Expired, match="too old"):
            await watch(client)


async def test_a_watch_that_fell_silent_ends() -> None:
    released = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(line("ADDED", 2))
        await released.wait()
        return response

    async with served(silent, TransportLimits(watch_idle_seconds=0.2)) as client:
        with pytest.raises(Unreachable, match="in time"):
            await watch(client)
        released.set()


async def test_a_slow_response_ends_at_the_deadline() -> None:
    released = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.json_response({})

    async with served(slow, TransportLimits(request_seconds=0.2)) as client:
        with pytest.raises(Unreachable, match="'far' did not respond in time"):
            await client.get(PODS, "n", "p")
        released.set()


async def test_a_request_throttled_beyond_its_deadline_is_not_sent() -> None:
    asked = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.json_response({})

    async with served(
        answer, TransportLimits(request_seconds=5.0, requests_per_second=0.1, burst=1)
    ) as client:
        await client.get(PODS, "n", "p")
        with pytest.raises(Throttled) as refused:
            await client.get(PODS, "n", "p")
    assert asked == 1
    assert refused.value.retry_after_seconds is not None
    assert 5.0 < refused.value.retry_after_seconds <= 10.0


async def test_a_refused_connection_is_reported_as_unreachable() -> None:
    async with served(stream()) as gone:
        server = gone.server
    config = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": server}}],
    }
    client = await ClusterClient.from_kubeconfig(config, name="far", limits=QUICK)
    try:
        with pytest.raises(
            Unreachable, match=r"'far' at 127.0.0.1:[0-9]+ cannot be reached: the connection is refused"
        ):
            await client.version()
    finally:
        await client.close()


async def test_the_options_of_a_deletion_are_sent_in_its_body() -> None:
    """The API ignores query parameters if there is a body.

    A dry run that is requested as a parameter would delete.
    """
    seen: list[tuple[dict[str, str], Any]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append((dict(request.query), await request.json()))
        return web.json_response({"kind": "Status", "status": "Success"})

    async with served(handler) as client:
        assert await client.delete(DEPLOYMENTS, "n", "d", uid="u", dry_run=True)
    query, body = seen[0]
    assert query == {}
    assert body["preconditions"] == {"uid": "u"}
    assert body["propagationPolicy"] == "Foreground"
    assert body["dryRun"] == ["All"]


async def test_an_apply_has_the_field_manager_and_the_token() -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return web.json_response({"metadata": {"name": "d", "uid": "u"}})

    async with served(handler) as client:
        manifest = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "d", "namespace": "n"},
        }
        applied = await client.apply(DEPLOYMENTS, manifest)
    assert applied.metadata.uid == "u"
    assert seen[0].path == "/apis/apps/v1/namespaces/n/deployments/d"
    assert dict(seen[0].query) == {"fieldManager": "pilothouse", "force": "false"}
    assert seen[0].headers["Content-Type"] == "application/apply-patch+yaml"
    assert seen[0].headers["Authorization"] == "Bearer t0ken"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Unauthorized), (404, NotFound), (409, Conflict), (429, Throttled), (503, Unreachable)],
)
async def test_each_status_code_raises_its_error_class(status: int, kind: type[Exception]) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "no"}, status=status, headers={"Retry-After": "3"})

    async with served(handler) as client:
        with pytest.raises(kind):
            await client.get(PODS, "n", "p")


@pytest.mark.parametrize(
    ("words", "waits"),
    [("storage is (re)initializing", False), ("too many requests, please try again", True)],
)
async def test_a_starting_watch_cache_delays_only_its_own_kind(words: str, waits: bool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/pods"):
            status = {"kind": "Status", "message": words, "details": {"retryAfterSeconds": 30}}
            return web.json_response(status, status=429, headers={"Retry-After": "30"})
        return web.json_response({"metadata": {"name": "d", "uid": "u"}})

    async with served(handler) as client:
        with pytest.raises(Throttled) as told:
            await client.list(PODS, "n")
        assert told.value.retry_after_seconds == 30
        if waits:
            with pytest.raises(Throttled):
                await client.get(DEPLOYMENTS, "n", "d")
        else:
            assert (await client.get(DEPLOYMENTS, "n", "d")).metadata.uid == "u"


async def test_a_proxy_that_requires_credentials_is_reported_with_the_cluster() -> None:
    """With plain HTTP the proxy's response replaces the cluster's.

    Its text may repeat the credentials.
    """

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "canary"}, status=407)

    async with served(handler) as client:
        with pytest.raises(Unreachable) as told:
            await client.get(PODS, "n", "p")
    assert re.fullmatch(
        r"cluster 'far' at 127\.0\.0\.1:\d+ cannot be reached: the proxy in front of it responds with 407",
        told.value.message,
    )


async def test_a_response_that_is_not_from_kubernetes_is_refused() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>welcome</html>")

    async with served(handler) as client:
        with pytest.raises(Unreachable, match="cannot be read"):
            await client.get(PODS, "n", "p")


async def test_a_list_follows_its_continue_token() -> None:
    asked: list[dict[str, str]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(dict(request.query))
        first = "continue" not in request.query
        names = ["a", "b"] if first else ["c"]
        return web.json_response(
            {
                "metadata": {"resourceVersion": "7", "continue": "tok/en=" if first else ""},
                "items": [{"metadata": {"name": name}} for name in names],
            }
        )

    async with served(handler) as client:
        listed = await client.list(PODS, label_selector="a=b")
    assert [pod.metadata.name for pod in listed.items] == ["a", "b", "c"]
    assert listed.resource_version == "7"
    assert asked == [
        {"limit": "2", "labelSelector": "a=b"},
        {"limit": "2", "labelSelector": "a=b", "continue": "tok/en="},
    ]


async def test_an_empty_list_may_be_null() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"metadata": {"resourceVersion": "7"}, "items": None})

    async with served(handler) as client:
        assert (await client.list(PODS)).items == ()


async def test_a_watch_left_early_returns_its_connection() -> None:
    one = TransportLimits(request_seconds=5, connections=1)
    async with served(stream(line("ADDED", 2), line("MODIFIED", 3)), one) as client:
        for _ in range(3):
            async with aclosing(client.watch(PODS, resource_version="1")) as events:
                assert (await anext(events)).type == "ADDED"


async def test_lines_are_split_equally_for_all_chunk_sizes() -> None:
    data = b"one\n\ntwo\r\nthree\nrest"

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]

    lines = 0

    async def before() -> None:
        nonlocal lines
        lines += 1

    for size in range(1, len(data) + 1):
        lines = 0
        found = [part.strip() async for part in split_lines(chunks(size), 100, before)]
        # Empty lines count, too.
        assert (found, lines) == ([b"one", b"two", b"three"], 4)
