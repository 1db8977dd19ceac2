"""Common parts of a cluster's observers: their lease, informers, and the loop that writes.

    informers mark changes -> batched for a moment -> locked, observed and written in batches

While the database is away, the observer waits. Then it observes everything on the cluster again, because changes that
were taken from the schedule but not written are lost.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.objects import Resource, T
from pilothouse_server.reconcile.observe.informer import Informer
from pilothouse_server.reconcile.queue.cluster_clients import log_failure
from pilothouse_server.reconcile.queue.leadership import under_lease
from pilothouse_server.reconcile.queue.leased_client import LeaseLost
from pilothouse_server.reconcile.repository.leases import Lease
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction

log = structlog.get_logger(__name__)

# The pause after a write that failed because the database is away.
_DATABASE_SECONDS = 1.0
# Interval after which a row that could not be written is observed again.
_UNWRITABLE_SECONDS = 60.0
# A busy server writes less often, and several changes of a row only once: it batches for as long as the last write
# took, but not longer than a user would wait for a status.
_OTHERS_SHARE, _MOST_GATHER_SECONDS = 1.0, 0.2


@dataclass(frozen=True)
class LeasedCluster:
    """A registered cluster that this server observes under a lease."""

    name: str
    store: Store
    client: ClusterClient
    lease: Lease

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction that commits only while the lease is held. Raises LeaseLost."""
        return under_lease(self.store, self.lease)


class ClusterObserver(ABC):
    """The observer of one subject on one cluster. `run` works until cancelled."""

    # Name of the observed resources, for logs and tasks.
    subject: str

    def __init__(self, cluster: LeasedCluster) -> None:
        self.cluster = cluster
        self._wake = asyncio.Event()

    @abstractmethod
    def start(self, group: asyncio.TaskGroup) -> None:
        """Starts the observer's tasks."""

    async def run(self) -> None:
        """Observes until cancelled. Raises LeaseLost when the database refuses this server's epoch."""
        try:
            async with asyncio.TaskGroup() as group:
                self.start(group)
        except BaseExceptionGroup as failed:
            if failed.subgroup(LeaseLost) is not None:
                raise LeaseLost from None
            raise

    def informer(
        self, resource: Resource[T], on_change: Callable[[T | None, T | None], None], label_selector: str
    ) -> Informer[T]:
        """Returns an informer of this cluster whose failures are logged."""
        return Informer(self.cluster.client, resource, label_selector, on_change, self.watch_failed)

    def task_name(self, activity: str) -> str:
        """Returns the name of a task of this observer."""
        return f"{activity} {self.subject} of {self.cluster.name}"

    def watch_failed(self, error: ClusterError) -> None:
        """Logs the cluster's error; the watch continues by itself."""
        log_failure("watch interrupted", self.cluster.name, error, subject=self.subject)


class StatusObserver(ClusterObserver):
    """An observer that writes the status of rows in batches.

    `synced` is set after the first pass over all rows.
    """

    def __init__(self, cluster: LeasedCluster, *, gather_seconds: float) -> None:
        super().__init__(cluster)
        self.synced = asyncio.Event()
        self._gather_seconds = gather_seconds

    @abstractmethod
    def informers(self) -> Sequence[Informer[Any]]:
        """Returns the informers that must have listed once before anything is written."""

    @abstractmethod
    async def uids(self, transaction: ReadTransaction) -> Iterable[str]:
        """Returns the uids of all resources with a row for the cluster; some of them may have lost their objects."""

    @abstractmethod
    def mark(self, uid: str, *, in_seconds: float = 0.0) -> None:
        """Schedules a check of a row."""

    @abstractmethod
    def seconds_to_next(self) -> float | None:
        """Returns the seconds until there is something to write; None if there is nothing."""

    @abstractmethod
    async def write_due(self) -> None:
        """Writes due rows. Raises LeaseLost, PilothouseError."""

    @abstractmethod
    async def write_batch(self, uids: list[str]) -> None:
        """Writes the cluster's state of these rows, in one transaction. Raises LeaseLost, PilothouseError."""

    async def write(self, uids: list[str]) -> None:
        """Writes the cluster's state of these rows.

        A row that cannot be written does not delay the others.

        Raises the errors of `write_batch`.
        """
        try:
            await self.write_batch(uids)
        except (LeaseLost, PilothouseError):
            raise
        except Exception as error:
            if len(uids) > 1:
                for uid in uids:
                    await self.write([uid])
                return
            (uid,) = uids
            log.exception(
                "the observed state of a resource cannot be written",
                subject=self.subject,
                cluster=self.cluster.name,
                uid=uid,
                error=type(error).__name__,
            )
            self.mark(uid, in_seconds=_UNWRITABLE_SECONDS)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Starts the informers and the loop that writes."""
        for informer in self.informers():
            group.create_task(informer.run(), name=self.task_name("inform"))
        group.create_task(self._write_loop(), name=self.task_name("observe"))

    async def _write_loop(self) -> None:
        for informer in self.informers():
            await informer.synced.wait()
        complete, took = False, 0.0
        while True:
            try:
                if not complete:
                    async with self.cluster.store.system_read() as transaction:
                        for uid in await self.uids(transaction):
                            self.mark(uid)
                    complete = True
                began = monotonic()
                await self.write_due()
                took = monotonic() - began
            except PilothouseError as error:
                log.warning(
                    "observation cannot be written",
                    subject=self.subject,
                    cluster=self.cluster.name,
                    reason=error.reason,
                )
                await asyncio.sleep(_DATABASE_SECONDS)
                complete = False
            if complete:
                self.synced.set()
            await self._pause(took)

    async def _pause(self, took: float) -> None:
        self._wake.clear()
        seconds = self.seconds_to_next()
        if seconds is None or seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return
        await asyncio.sleep(max(self._gather_seconds, min(took * _OTHERS_SHARE, _MOST_GATHER_SECONDS)))
