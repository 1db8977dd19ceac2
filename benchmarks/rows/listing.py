"""Row 8: late pages of lists at growing numbers of rows, against the first page of the smallest list.

The late page is requested with the token of the page before it. The rows before it are read in large pages: a token
belongs to a query, not to a page size.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc.aio

from benchmarks import population
from benchmarks.measure import Figure, Run, compared, in_turns
from benchmarks.product import Product
from benchmarks.testbed import Database, Testbed, connected
from pilothouse.audit.v1 import audit_pb2
from pilothouse.container.v1 import container_pb2

_PAGE_SIZE = 50
_LATE_PAGE = 1_000
_STRIDE = 1_000
# The number of calls in one run: one call takes a few milliseconds.
_CALLS = 20


@dataclass(frozen=True, slots=True)
class _List:
    """A list method, its messages, and the field with its items."""

    method: str
    request: Any
    response: Any
    items: str


_OPERATIONS = _List(
    "/pilothouse.audit.v1.AuditService/ListOperations",
    audit_pb2.ListOperationsRequest,
    audit_pb2.ListOperationsResponse,
    "operations",
)
_CONTAINERS = _List(
    "/pilothouse.container.v1.ContainerService/ListContainers",
    container_pb2.ListContainersRequest,
    container_pb2.ListContainersResponse,
    "containers",
)


class _Reader:
    """Requests pages from one server."""

    def __init__(
        self,
        testbed: Testbed,
        product: Product,
        database: Database,
        listed: _List,
        channel: grpc.aio.Channel,
        token: str,
    ) -> None:
        self._testbed = testbed
        self._product = product
        self._database = database
        self._listed = listed
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(listed.method)

    @property
    def name(self) -> str:
        """The name of the method."""
        return self._listed.method.rpartition("/")[2]

    async def token_of(self, page: int) -> str:
        """Returns the token that requests this page."""
        token, left = "", (page - 1) * _PAGE_SIZE
        while left:
            size = min(left, _STRIDE)
            token = (await self._page(token, size)).next_page_token
            if not token:
                raise RuntimeError(f"there is no page {page} of {self._listed.items}")
            left -= size
        return token

    async def run(self, token: str) -> Run:
        """Measures the milliseconds of a page, and its CPU time."""
        return await self._testbed.metered(self._product.process_id, self._database, self._timed(token), "ms")

    async def _timed(self, token: str) -> dict[str, float]:
        began = time.perf_counter()
        for _ in range(_CALLS):
            answer = await self._page(token, _PAGE_SIZE)
            if len(getattr(answer, self._listed.items)) != _PAGE_SIZE:
                raise RuntimeError(f"a page of {self._listed.items} was not full")
        return {"ms": (time.perf_counter() - began) / _CALLS * 1000, "calls": _CALLS}

    async def _page(self, token: str, size: int) -> Any:
        request = self._listed.request(page_size=size, page_token=token)
        answer = await self._call(request.SerializeToString(), metadata=self._metadata)
        return self._listed.response.FromString(answer)


async def lists(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures row 8."""
    async for figure in _operations(testbed):
        yield figure
    async for figure in _containers(testbed):
        yield figure


async def _operations(testbed: Testbed) -> AsyncIterator[Figure]:
    sizes = testbed.scale.records
    async with AsyncExitStack() as stack:
        readers, databases = [], []
        for _ in range(2):
            database = await stack.enter_async_context(testbed.database())
            databases.append(database)
            readers.append(await _reader(stack, testbed, database, _OPERATIONS))
        smallest, growing = readers
        await _records(databases[0], 0, sizes[0])
        written = 0
        for records in sizes:
            await _records(databases[1], written, records)
            written = records
            page = min(_LATE_PAGE, records // _PAGE_SIZE)
            yield await _compared(testbed, growing, smallest, page, records, sizes[0], 1.2)


async def _records(database: Database, before: int, records: int) -> None:
    """Adds records after those that were added before and the few that the server has written itself."""
    async with connected(database.superuser) as connection:
        await population.records(connection, records - before)


async def _containers(testbed: Testbed) -> AsyncIterator[Figure]:
    smallest, *larger = testbed.scale.listed
    async with AsyncExitStack() as stack:
        base = await _reader(
            stack, testbed, await stack.enter_async_context(testbed.database(smallest)), _CONTAINERS
        )
        for containers in larger:
            database = await stack.enter_async_context(testbed.database(containers))
            reader = await _reader(stack, testbed, database, _CONTAINERS)
            for page in (1, min(_LATE_PAGE, containers // _PAGE_SIZE)):
                yield await _compared(testbed, reader, base, page, containers, smallest, 2.0)


async def _reader(stack: AsyncExitStack, testbed: Testbed, database: Database, listed: _List) -> _Reader:
    product = await stack.enter_async_context(testbed.product(database))
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(product.address))
    return _Reader(testbed, product, database, listed, channel, await product.token())


async def _compared(
    testbed: Testbed, reader: _Reader, base: _Reader, page: int, rows: int, fewest: int, most: float
) -> Figure:
    late = await reader.token_of(page)
    pairs = await in_turns(
        lambda: reader.run(late), lambda: base.run(""), testbed.scale.runs, warm=testbed.scale.warm
    )
    return compared(
        "8",
        f"{reader.name}, page {page:,} of {rows:,}",
        "ms",
        pairs,
        f"page 1 of {fewest:,}",
        ("≤", most),
    )
