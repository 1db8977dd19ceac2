"""Streams samples, as any server stores them, to all watchers of this server.

A writer announces the lowest id of its batch with its commit (NOTIFY). A server with watchers reads from that id on.
Ids are not assigned in commit order, so the server may read some samples twice. That does no harm, because for each
container only a sample newer than the last one counts. Notifications are only hints: the table is also read every two
seconds. Without watchers nothing is read, and no connection is open.

There is no queue per watcher. One ordered mapping has the newest sample of each container, with the latest change last.
A watcher has only a position: the samples that it has not seen yet are at the end of the mapping. So a slow watcher
costs nothing. When it reads again, it gets the newest sample of each container and none in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from pilothouse_server.errors import PilothouseError, Unavailable
from pilothouse_server.metrics.model import StoredSample
from pilothouse_server.metrics.repository import notifications, samples
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.errors import database_unavailable
from pilothouse_server.store.unit_of_work import Store
from pilothouse_server.watch.hub import Watermark

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 2.0
SIGN_OF_LIFE_SECONDS: Final = 10.0
READY_SECONDS: Final = 10.0
# A sample older than this is no longer live.
_KEEP_SECONDS = 3600.0
_MOST_CONTAINERS = 200_000
_PAGE = 5000
_LONGEST_DELAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PublishedSample:
    """The newest sample of a container; `answer` is its serialized response, rendered once for all watchers."""

    position: int
    published_at: float
    sample: StoredSample
    answer: bytes


@dataclass(frozen=True, slots=True)
class Interest:
    """The selection of a watcher. `visible` is evaluated for each response, because grants may change."""

    visible: Callable[[], frozenset[int] | None]
    namespace_id: int | None = None
    container: str = ""
    period_seconds: float = 0.0

    def wants(self, sample: StoredSample, visible: frozenset[int] | None) -> bool:
        """Returns whether the watcher selects the sample."""
        return (
            (self.namespace_id is None or sample.namespace_id == self.namespace_id)
            and (not self.container or sample.container == self.container)
            and (visible is None or sample.namespace_id in visible)
        )


class UsageStream:
    """Distributes the live samples of one server. `run` is its task."""

    def __init__(
        self,
        store: Store,
        render: Callable[[StoredSample], bytes],
        *,
        poll_seconds: float = POLL_SECONDS,
        sign_of_life_seconds: float = SIGN_OF_LIFE_SECONDS,
    ) -> None:
        self._store = store
        self._render = render
        self._poll_seconds = poll_seconds
        self._sign_of_life_seconds = sign_of_life_seconds
        self._newest: dict[int, PublishedSample] = {}
        self._positions = Watermark()
        self._watchers = 0
        self._wanted, self._unwanted = asyncio.Event(), asyncio.Event()
        self._listened, self._ready, self._hint = asyncio.Event(), asyncio.Event(), asyncio.Event()
        # The ids to read from: the next unread id, and the lowest id announced since the last read.
        self._next_id: int | None = None
        self._announced_id: int | None = None
        # Incremented when the database was replaced, because its ids are then reused.
        self._database = 0
        self._read_database = 0

    def reset_after_rewind(self) -> None:
        """Resets after a rewind: restarts from the database's newest sample and ends watches, as ids may differ."""
        self._database += 1
        self._newest.clear()
        self._positions.wake()
        self._hint.set()

    async def run(self) -> None:
        """Reads and publishes samples while there are watchers, until cancelled; waits for an unreachable database."""
        while True:
            await self._wanted.wait()
            work = [
                asyncio.create_task(part, name=name)
                for name, part in (("usage listener", self._listen()), ("usage poll", self._poll()))
            ]
            unwanted = asyncio.create_task(self._unwanted.wait())
            try:
                done, _ = await asyncio.wait([*work, unwanted], return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancel_and_wait(*work, unwanted)
                if not self._watchers:
                    self._forget()
            for task in done:
                task.result()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[int]:
        """Keeps the stream reading within the block; yields the position after which samples are new.

        Raises:
            Unavailable: the database is unreachable.
        """
        self._watchers += 1
        self._unwanted.clear()
        self._wanted.set()
        try:
            try:
                async with asyncio.timeout(READY_SECONDS):
                    await self._ready.wait()
            except TimeoutError:
                raise database_unavailable() from None
            yield self._positions.newest
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._wanted.clear()
                self._unwanted.set()

    async def follow(
        self, position: int, shown: Iterable[StoredSample], interest: Interest
    ) -> AsyncGenerator[Sequence[PublishedSample], None]:
        """Yields samples published after `position`, the newest of each container; every ten seconds an empty batch.

        The empty batch is a keepalive. `shown`: the samples that the watcher has already.

        Raises:
            Unavailable: the database was rewound; watch again.
        """
        database = self._database
        loop = asyncio.get_running_loop()
        told: dict[int, datetime] = {sample.container_id: sample.timestamp for sample in shown}
        last_answer = loop.time()
        next_look = last_answer + (interest.period_seconds if told else 0.0)
        while True:
            sign_due = last_answer + self._sign_of_life_seconds
            if next_look > loop.time():
                await asyncio.sleep(min(next_look, sign_due) - loop.time())
            else:
                await self._positions.beyond(position, sign_due - loop.time())
            if self._database != database:
                raise Unavailable(
                    "the database went back to an earlier state: watch again", reason="WATCH_CHANGED"
                )
            now = loop.time()
            found: list[PublishedSample] = []
            if now >= next_look and self._positions.newest > position:
                found = self._unseen(position, told, interest)
                position = self._positions.newest
            if found:
                next_look = now + interest.period_seconds
            if found or now >= sign_due:
                last_answer = now
                yield found

    def publish(self, stored: Iterable[StoredSample]) -> None:
        """Adds samples in any order; leaves out samples that are not newer than the last one of their container."""
        position, now = self._positions.newest, asyncio.get_running_loop().time()
        for sample in stored:
            known = self._newest.get(sample.container_id)
            if known is not None:
                if sample.timestamp <= known.sample.timestamp:
                    continue
                # Deleted first, so that the new entry is at the end.
                del self._newest[sample.container_id]
            position += 1
            self._newest[sample.container_id] = PublishedSample(position, now, sample, self._render(sample))
        while self._newest:
            oldest = next(iter(self._newest.values()))
            if len(self._newest) <= _MOST_CONTAINERS and oldest.published_at > now - _KEEP_SECONDS:
                break
            del self._newest[oldest.sample.container_id]
        self._positions.advance(position)

    def _unseen(self, position: int, told: dict[int, datetime], interest: Interest) -> list[PublishedSample]:
        visible = interest.visible()
        found: list[PublishedSample] = []
        for live in reversed(self._newest.values()):
            if live.position <= position:
                break
            sample = live.sample
            before = told.get(sample.container_id)
            if (before is None or sample.timestamp > before) and interest.wants(sample, visible):
                # From here on, `publish` admits no older sample of this container.
                told.pop(sample.container_id, None)
                found.append(live)
        found.reverse()
        return found

    async def _poll(self) -> None:
        # A transaction that commits before the listener starts is found by its id; later ones are announced.
        await self._listened.wait()
        while True:
            try:
                await self._catch_up()
            except PilothouseError as error:
                log.warning("usage cannot be read", reason=error.reason)
            try:
                async with asyncio.timeout(self._poll_seconds):
                    await self._hint.wait()
            except TimeoutError:
                pass
            self._hint.clear()

    async def _catch_up(self) -> None:
        announced, self._announced_id = self._announced_id, None
        if self._read_database != self._database:
            self._read_database, self._next_id, announced = self._database, None, None
        try:
            async with self._store.system_read() as transaction:
                if self._next_id is None:
                    self._next_id = await samples.highest_id(transaction) + 1
                    self._ready.set()
                first = self._next_id if announced is None else min(self._next_id, announced)
                while True:
                    found = await samples.stored_since(transaction, first, _PAGE)
                    self.publish(found)
                    if found:
                        first = found[-1].id + 1
                        self._next_id = max(self._next_id, first)
                    if len(found) < _PAGE:
                        return
        except PilothouseError:
            if announced is not None:
                self._announced(announced)
            raise

    async def _listen(self) -> None:
        delay = 0.1
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await notifications.listen(
                    self._store.database.direct_dsn, self._listened.set, self._announced
                )
            except PilothouseError as error:
                log.warning("usage listener lost", reason=error.reason)
            # Without the listener, polling alone finds the samples.
            self._listened.set()
            delay = 0.1 if loop.time() - started > _LONGEST_DELAY_SECONDS else delay
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY_SECONDS)

    def _announced(self, first_id: int) -> None:
        self._announced_id = first_id if self._announced_id is None else min(self._announced_id, first_id)
        self._hint.set()

    def _forget(self) -> None:
        self._newest.clear()
        self._next_id = self._announced_id = None
        for event in (self._listened, self._ready, self._hint):
            event.clear()
