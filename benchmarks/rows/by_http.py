"""Row 16: GetContainer on the HTTP port, as gRPC-Web and as JSON, against the same gRPC call to the same server."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from google.protobuf import json_format

from benchmarks.machine import free_port
from benchmarks.measure import Arm, Figure, Pairs, Run, all_in_turns, compared, server_cost
from benchmarks.rows.reading import CONCURRENCY, METHOD, encoded_requests
from benchmarks.testbed import Testbed
from pilothouse.container.v1 import container_pb2 as pb


async def by_http(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures the rate, and the server's CPU time per call."""
    port = free_port()
    async with AsyncExitStack() as stack:
        calls, posts = await stack.enter_async_context(
            testbed.children(
                ("loads.calls", testbed.cores.asking), ("loads.http_calls", testbed.cores.asking)
            )
        )
        database = await stack.enter_async_context(testbed.database(testbed.scale.containers[0]))
        product = await stack.enter_async_context(
            testbed.product(database, variables={"PILOTHOUSE_HTTP_LISTEN": f"127.0.0.1:{port}"})
        )
        token = await product.tenant_token()
        load: dict[str, Any] = {"concurrency": CONCURRENCY, "seconds": testbed.scale.seconds}

        async def by_grpc() -> Run:
            asked = calls.ask(
                "run",
                address=product.address,
                method=METHOD,
                token=token,
                requests=encoded_requests(),
                **load,
            )
            return await testbed.metered(product.process_id, database, asked)

        def posting(content_type: str, requests: list[str]) -> Arm:
            headers = {"authorization": f"Bearer {token}", "content-type": content_type}

            async def run() -> Run:
                asked = posts.ask(
                    "run",
                    url=f"http://127.0.0.1:{port}{METHOD}",
                    requests=requests,
                    headers=headers,
                    **load,
                )
                return await testbed.metered(product.process_id, database, asked)

            return run

        web = posting("application/grpc-web+proto", [_framed(each) for each in encoded_requests()])
        plain = posting("application/json", [_as_json(each) for each in encoded_requests()])
        base, *others = await all_in_turns((by_grpc, web, plain), testbed.scale.runs, warm=testbed.scale.warm)
    for form, runs in zip(("gRPC-Web", "JSON"), others, strict=True):
        what = f"GetContainer by {form}, {CONCURRENCY} at a time"
        pairs = Pairs(runs, base)
        yield compared("16", what, "/s", pairs, "gRPC")
        yield server_cost("16", what, pairs, "gRPC", 1.0 if form == "gRPC-Web" else 1.5)


def _framed(request: str) -> str:
    message = b64decode(request)
    return b64encode(bytes(1) + len(message).to_bytes(4, "big") + message).decode()


def _as_json(request: str) -> str:
    fields = json_format.MessageToDict(pb.GetContainerRequest.FromString(b64decode(request)))
    return b64encode(json.dumps(fields).encode()).decode()
