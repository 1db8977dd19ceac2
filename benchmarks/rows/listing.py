"""Row 8: a late page of the audit log against its first, at growing numbers of records.

The late page is asked for with the token that the page before it gave, so all pages are walked once.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import grpc.aio

from benchmarks import population
from benchmarks.measure import Figure, in_turns
from benchmarks.world import World, connected
from pilothouse.audit.v1 import audit_pb2 as pb

_METHOD = "/pilothouse.audit.v1.AuditService/ListOperations"
_PAGE_SIZE = 50
_LATE_PAGE = 1_000
# So many calls are one run: one takes a few milliseconds.
_CALLS = 20

Call = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


async def list_operations(world: World) -> AsyncIterator[Figure]:
    """Row 8, at each number of records."""
    async with world.database() as database, world.product(database) as product:
        token = await product.token()
        metadata = (("authorization", f"Bearer {token}"),)
        written = 0
        for records in world.scale.records:
            async with connected(database.superuser) as connection:
                first = await connection.fetchval("SELECT audit_sequence + 1 FROM stream_head")
                await population.records(connection, first, first + records - written - 1)
            written = records
            page = min(_LATE_PAGE, records // _PAGE_SIZE)
            async with grpc.aio.insecure_channel(product.address) as channel:
                call: Call = channel.unary_unary(_METHOD)
                late = await _token_of(call, metadata, page)
                pairs = await in_turns(
                    lambda call=call, late=late: _milliseconds(call, metadata, late),  # type: ignore[misc]
                    lambda call=call: _milliseconds(call, metadata, ""),  # type: ignore[misc]
                    world.scale.runs,
                )
            yield Figure(
                "8",
                f"ListOperations, page {page:,} of {records:,} records",
                "ms",
                pairs.value,
                pairs.base,
                "page 1",
                pairs.spread,
                ("≤", 1.2),
            )


async def _token_of(call: Call, metadata: tuple[tuple[str, str], ...], page: int) -> str:
    token = ""
    for _ in range(page - 1):
        token = (await _answer(call, metadata, token)).next_page_token
        if not token:
            raise RuntimeError(f"there is no page {page}")
    return token


async def _answer(call: Call, metadata: tuple[tuple[str, str], ...], token: str) -> pb.ListOperationsResponse:
    request = pb.ListOperationsRequest(page_size=_PAGE_SIZE, page_token=token)
    return pb.ListOperationsResponse.FromString(await call(request.SerializeToString(), metadata=metadata))


async def _milliseconds(call: Call, metadata: tuple[tuple[str, str], ...], token: str) -> float:
    began = time.perf_counter()
    for _ in range(_CALLS):
        answer = await _answer(call, metadata, token)
        if len(answer.operations) != _PAGE_SIZE:
            raise RuntimeError(f"a page held {len(answer.operations)} records")
    return (time.perf_counter() - began) / _CALLS * 1000
