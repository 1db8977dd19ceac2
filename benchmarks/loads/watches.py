"""Watchers with one stream each: how long until all watchers have all events, and how long each event takes.

Messages stay bytes. A change is recognized by its first field, `change_type`: other messages (SYNCED, bookmarks) are
no events. The streams are spread over several connections, because servers limit the streams of one connection.
"""

from __future__ import annotations

import asyncio
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from itertools import count
from uuid import uuid4

import grpc.aio
from google.protobuf import field_mask_pb2

from benchmarks.baselines import etcd
from benchmarks.child import answering
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.runtime.tasks import cancel_and_wait

_STREAMS_PER_CONNECTION = 90
# Opening all streams together would measure how servers handle a burst, which is not the question here.
_OPENED_TOGETHER = 50
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
_CHANGES = frozenset(
    (resource.CHANGE_TYPE_ADDED, resource.CHANGE_TYPE_MODIFIED, resource.CHANGE_TYPE_DELETED)
)
_LIMIT_SECONDS = 120.0
# Long enough that nothing else in a message matches, and a valid label value.
_MARK = "mark-%08d"
_MARKS = re.compile(rb"mark-\d{8}")
_UPDATE = "/pilothouse.container.v1.ContainerService/UpdateContainer"


class Watches:
    """The watchers of this process."""

    def __init__(self) -> None:
        self._channels: list[grpc.aio.Channel] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._last: bytes = b""
        self._waiting = 0
        self._wanted = 0
        self._standing = 0
        self._done = asyncio.Event()
        self._all_stand = asyncio.Event()
        self._arrived: dict[bytes, list[float]] = {}
        self._numbers = count()

    async def open(
        self, address: str, method: str, request: str, watchers: int, token: str = "", etcd: bool = False
    ) -> None:
        """Opens the streams, and returns when each has received its first message."""
        await self.close()
        self._standing = 0
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        for number in range(watchers):
            if number % _STREAMS_PER_CONNECTION == 0:
                self._channels.append(grpc.aio.insecure_channel(address, options=_OPTIONS))
            follow = self._follow_etcd if etcd else self._follow
            work = follow(self._channels[-1], method, b64decode(request), metadata)
            self._tasks.append(asyncio.create_task(work))
            if len(self._tasks) % _OPENED_TOGETHER == 0 or len(self._tasks) == watchers:
                await self._until_all_stand()

    async def _until_all_stand(self) -> None:
        self._all_stand.clear()
        async with asyncio.timeout(_LIMIT_SECONDS):
            while self._standing < len(self._tasks):
                standing = asyncio.create_task(self._all_stand.wait())
                await asyncio.wait([standing, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
                standing.cancel()
                for task in self._tasks:
                    if task.done():
                        raise RuntimeError(f"a watch ended before it was of use: {task.exception()}")

    async def close(self) -> None:
        """Ends the streams."""
        await cancel_and_wait(*self._tasks)
        self._tasks.clear()
        for channel in self._channels:
            await channel.close()
        self._channels.clear()

    async def expect(self, events: int) -> None:
        """Starts to count, until each watcher has received `events` events."""
        self._done.clear()
        self._waiting = events * len(self._tasks)

    async def finished(self) -> float:
        """Returns the monotonic time at which the last of the expected events arrived."""
        async with asyncio.timeout(_LIMIT_SECONDS):
            await self._done.wait()
        return time.monotonic()

    async def last_event(self) -> str:
        """Returns the last event that arrived, in base64, for the bare server to send."""
        return b64encode(self._last).decode()

    async def latencies_of_changes(
        self, address: str, token: str, namespace: str, name: str, events: int, pause: float
    ) -> dict[str, float]:
        """Changes a label of one container `events` times, every `pause` seconds; returns `_latencies`."""
        async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
            update: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_UPDATE)
            metadata = (("authorization", f"Bearer {token}"),)

            async def change(mark: str) -> None:
                request = pb.UpdateContainerRequest(
                    namespace=namespace,
                    name=name,
                    container=pb.Container(labels={"mark": mark}),
                    update_mask=field_mask_pb2.FieldMask(paths=["labels"]),
                    request_id=str(uuid4()),
                )
                await update(request.SerializeToString(), metadata=metadata)

            return await self._latencies(change, events, pause)

    async def latencies_of_puts(self, address: str, events: int, pause: float) -> dict[str, float]:
        """Measures the same for puts into etcd."""
        async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
            put: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(etcd.PUT)

            async def change(mark: str) -> None:
                await put(etcd.put_request(etcd.KEY, mark.encode()))

            return await self._latencies(change, events, pause)

    async def _latencies(
        self, change: Callable[[str], Awaitable[None]], events: int, pause: float
    ) -> dict[str, float]:
        """Returns the p99 in ms: `answered` counts from the response to the writer, `sent` from the writer's request.

        An event that is delivered before the writer has its response counts as 0 in `answered`.
        """
        await self.expect(events)
        sent: dict[bytes, float] = {}
        answered: dict[bytes, float] = {}
        began = time.monotonic()
        for number in range(events):
            await asyncio.sleep(began + number * pause - time.monotonic())
            mark = _MARK % next(self._numbers)
            sent[mark.encode()] = time.monotonic()
            await change(mark)
            answered[mark.encode()] = time.monotonic()
        # Even late events arrive before `finished` returns: a mark that is missing then is a fault of the server.
        await self.finished()
        arrived = [(mark, at) for mark in sent for at in self._arrived.pop(mark)]
        return {
            "answered": _percentile([max(0.0, at - answered[mark]) for mark, at in arrived]),
            "sent": _percentile([at - sent[mark] for mark, at in arrived]),
            "calls": events,
        }

    async def _follow(
        self,
        channel: grpc.aio.Channel,
        method: str,
        request: bytes,
        metadata: tuple[tuple[str, str], ...],
    ) -> None:
        stood = False
        watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method)
        async for message in watch(request, metadata=metadata):
            if message[0] == 0x08 and message[1] in _CHANGES:
                self._last = message
                self._note(message)
            elif not stood:
                stood = True
                self._stands()

    async def _follow_etcd(
        self,
        channel: grpc.aio.Channel,
        method: str,
        request: bytes,
        metadata: tuple[tuple[str, str], ...],
    ) -> None:
        watch: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
        call = watch(metadata=metadata)
        await call.write(request)
        stood = False
        async for message in call:
            if stood:
                self._note(message)
            else:
                stood = True
                self._stands()

    def _stands(self) -> None:
        self._standing += 1
        if self._standing == len(self._tasks):
            self._all_stand.set()

    def _note(self, message: bytes) -> None:
        # etcd may put several events into one message, each with its mark; events of the fan-out have no mark.
        marks = set(_MARKS.findall(message))
        for mark in marks:
            self._arrived.setdefault(mark, []).append(time.monotonic())
        self._waiting -= len(marks) or 1
        if self._waiting <= 0:
            self._done.set()


def _percentile(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)] * 1000


def main() -> None:
    """Runs the process."""
    watches = Watches()
    answering(
        {
            "open": watches.open,
            "close": watches.close,
            "expect": watches.expect,
            "finished": watches.finished,
            "last_event": watches.last_event,
            "latencies_of_changes": watches.latencies_of_changes,
            "latencies_of_puts": watches.latencies_of_puts,
        }
    )


if __name__ == "__main__":
    main()
