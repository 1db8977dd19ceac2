"""MetricsService: request → operation → response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import TypeVar

from pilothouse.metrics.v1 import metrics_pb2 as pb
from pilothouse_server.errors import invalid, not_found
from pilothouse_server.flowcontrol.classes import is_wide
from pilothouse_server.metrics import messages, operations
from pilothouse_server.metrics.model import PackedDay, Point, StepSizes, UsageSubject
from pilothouse_server.metrics.operations import Recorder, Recording, UsageStore
from pilothouse_server.metrics.usage_stream import Interest, UsageStream
from pilothouse_server.namespaces.messages import named_namespace
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.call import Call, counts_as
from pilothouse_server.rpc.encoding import ListAnswer
from pilothouse_server.runtime.event_loop import Share
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.paging import DEFAULT_PAGE_SIZE, LARGEST_PAGE_BYTES

# Seconds for which the samples of a slow sender wait for more samples to complete their batch.
GATHER_SECONDS = 1.0
_SAMPLES_AN_ANSWER = 1000
# Converting this many samples takes about a millisecond.
_SAMPLES_A_STEP = 100
_DEFAULT_PAGE = 50
_DEFAULT_QUERIES = 20
T = TypeVar("T")

_SUMMARIES = ListAnswer(pb.GetNamespaceSummaryResponse, "namespace_summaries")


def _rows_of(request: pb.QueryUsageRequest) -> int:
    """Returns the number of rows that a page of QueryUsage counts as, before its request is checked."""
    range_ = None
    if request.HasField("start_time"):
        end = request.end_time.seconds if request.HasField("end_time") else int(time.time())
        range_ = end - request.start_time.seconds
    size = 1 if request.container else request.page_size or DEFAULT_PAGE_SIZE
    return operations.rows_of_work(range_, request.step.seconds, size, by_sample=bool(request.program))


class MetricsService:
    """Serves `pilothouse.metrics.v1.MetricsService`. `stream` must have been created with `messages.watch_answer`."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["MetricsService"]

    def __init__(self, usage: UsageStore, stream: UsageStream, page_key: bytes) -> None:
        self._usage = usage
        self._stream = stream
        self._page_key = page_key

    async def RecordUsage(
        self, requests: AsyncIterator[pb.RecordUsageRequest], call: Call
    ) -> pb.RecordUsageResponse:
        """Stores samples of other programs."""
        recorder = Recorder(self._usage, call.read, lambda: call.caller)
        try:
            async for request in _gathered(requests, recorder):
                share, recordings = Share(), list[Recording]()
                for at in range(0, len(request.samples), _SAMPLES_A_STEP):
                    recordings += map(messages.recording, request.samples[at : at + _SAMPLES_A_STEP])
                    await share.used()
                await recorder.add(recordings)
            await recorder.flush()
        finally:
            await recorder.close()
            call.describe(accepted=recorder.report.accepted, rejected=recorder.report.rejected)
        return messages.report(recorder.report)

    @counts_as(_rows_of)
    async def QueryUsage(self, request: pb.QueryUsageRequest, call: Call) -> bytes:
        """Returns usage over time, serialized: packed days are copied into the response as they are stored."""
        page = wire.page_request(
            call,
            self._page_key,
            request.namespace,
            request.container,
            request.start_time.ToJsonString() if request.HasField("start_time") else "",
            request.end_time.ToJsonString() if request.HasField("end_time") else "",
            request.step.ToJsonString() if request.HasField("step") else "",
            *filter(None, (request.program, f"run {request.run}" if request.run else "")),
        )
        start, end = (
            wire.moment(getattr(request, name)) if request.HasField(name) else None
            for name in ("start_time", "end_time")
        )
        if request.run and (start or end):
            raise invalid("run", "must not be given with start_time or end_time: the run is the range")
        async with call.read(snapshot=True, replica=True) as transaction:
            namespace_id = await named_namespace(call, transaction, request.namespace)
            if request.run:
                start, end = await operations.run_times(
                    transaction, namespace_id, request.container, request.run
                )
            steps = operations.steps_of(
                transaction.now, start, end, request.step.ToTimedelta() if request.HasField("step") else None
            )
            found, next_page = await operations.usage(
                transaction,
                page,
                steps,
                namespace_id=namespace_id,
                container=request.container,
                visible=call.visible_namespaces(),
                form=messages.POINTS.form,
                program=request.program,
            )
        series, shown = await _fitting(found, steps, Share(last=is_wide(_rows_of(request))))
        response = pb.QueryUsageResponse(next_page_token=next_page.after(shown))
        response.step.FromTimedelta(timedelta(seconds=steps.step))
        return b"".join((*series, response.SerializeToString()))

    async def WatchUsage(
        self, request: pb.WatchUsageRequest, call: Call
    ) -> AsyncIterator[pb.WatchUsageResponse | bytes]:
        """Streams samples as they are stored."""
        async with self._stream.watching() as position:
            async with call.read(snapshot=True) as transaction:
                interest = Interest(
                    call.visible_namespaces,
                    await named_namespace(call, transaction, request.namespace),
                    request.container,
                    float(request.period_seconds),
                )
                newest = await operations.newest(
                    transaction,
                    namespace_id=interest.namespace_id,
                    container=interest.container,
                    visible=interest.visible(),
                )
            for part in _parts(newest) or [()]:
                yield pb.WatchUsageResponse(samples=map(messages.USAGE_SAMPLE.to_proto, part))
            async for found in self._stream.follow(position, newest, interest):
                if not found and interest.namespace_id is not None:
                    await _check_namespace(call, interest.namespace_id)
                for samples in _parts(found) or [()]:
                    yield b"".join(item.answer for item in samples)

    async def GetContainerDetails(
        self, request: pb.GetContainerDetailsRequest, call: Call
    ) -> pb.GetContainerDetailsResponse:
        """Returns a container with its namespace, image and newest sample."""
        async with call.read() as transaction:
            found = await operations.details(transaction, request.namespace, request.name)
        call.describe(resource_id=found.id, namespace_id=found.namespace_id)
        return pb.GetContainerDetailsResponse(container_details=messages.CONTAINER_DETAILS.to_proto(found))

    async def GetNamespaceSummary(self, request: pb.GetNamespaceSummaryRequest, call: Call) -> bytes:
        """Returns the contents of namespaces."""
        page = wire.page_request(call, self._page_key, request.namespace)
        async with call.read() as transaction:
            found, next_page = await operations.list_summaries(
                transaction,
                page,
                namespace_id=await named_namespace(call, transaction, request.namespace),
                visible=call.visible_namespaces(),
            )
        return await _SUMMARIES.rendered(found, messages.NAMESPACE_SUMMARY.to_proto, next_page)

    async def ListTopContainers(
        self, request: pb.ListTopContainersRequest, call: Call
    ) -> pb.ListTopContainersResponse:
        """Lists the containers with the highest usage."""
        async with call.read(snapshot=True) as transaction:
            found = await operations.top(
                transaction,
                messages.TOP_BY[request.by],
                namespace_id=await named_namespace(call, transaction, request.namespace),
                visible=call.visible_namespaces(),
                most=request.page_size or _DEFAULT_PAGE,
            )
        return pb.ListTopContainersResponse(samples=[messages.USAGE_SAMPLE.to_proto(item) for item in found])

    async def GetDatabaseStats(
        self, request: pb.GetDatabaseStatsRequest, call: Call
    ) -> pb.GetDatabaseStatsResponse:
        """Returns the state of the database."""
        found = await operations.database_stats(
            call.store, request.table_name, request.slow_query_limit or _DEFAULT_QUERIES
        )
        return messages.DATABASE_STATS.to_proto(found)

    async def GetTableSizes(self, request: pb.GetTableSizesRequest, call: Call) -> pb.GetTableSizesResponse:
        """Returns the sizes of tables."""
        found = await operations.table_sizes(call.store, include_partitions=request.include_partitions)
        return pb.GetTableSizesResponse(table_sizes=[messages.TABLE_SIZE.to_proto(item) for item in found])


async def _fitting(
    found: Sequence[tuple[UsageSubject, list[PackedDay | Point]]], steps: StepSizes, share: Share
) -> tuple[list[bytes], int]:
    """Returns the serialized series that fit into a page, and the number of containers that they cover.

    Containers without points have no series. At least one container with points is returned. The points are cleared.
    """
    series: list[bytes] = []
    size = 0
    for number, (subject, parts) in enumerate(found):
        if not parts:
            continue
        pieces: list[bytes] = []
        for piece in messages.pieces_of_series(subject, parts, steps):
            pieces.append(piece)
            await share.used()
        # Freeing all points at the end would block for milliseconds.
        parts.clear()
        one = messages.series(pieces)
        size += len(one)
        if series and size > LARGEST_PAGE_BYTES:
            return series, number
        series.append(one)
    return series, len(found)


async def _check_namespace(call: Call, namespace_id: int) -> None:
    """Raises NotFound if the watched namespace was deleted, even if another one has its name."""
    async with call.read() as transaction:
        if await named_namespace(call, transaction, call.namespace) != namespace_id:
            raise not_found("namespace", call.namespace)


async def _gathered(
    requests: AsyncIterator[pb.RecordUsageRequest], recorder: Recorder
) -> AsyncIterator[pb.RecordUsageRequest]:
    """Yields the requests; while none arrives, gathered samples are stored after `GATHER_SECONDS`."""
    upcoming: asyncio.Future[pb.RecordUsageRequest] | None = None
    try:
        while True:
            upcoming = asyncio.ensure_future(anext(requests))
            done, _ = await asyncio.wait([upcoming], timeout=GATHER_SECONDS)
            if not done:
                await recorder.flush()
                await asyncio.wait([upcoming])
            try:
                request = upcoming.result()
            except StopAsyncIteration:
                return
            yield request
    finally:
        if upcoming is not None:
            await cancel_and_wait(upcoming)


def _parts(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[at : at + _SAMPLES_AN_ANSWER] for at in range(0, len(items), _SAMPLES_AN_ANSWER)]
