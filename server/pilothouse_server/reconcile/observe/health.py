"""Health of a cluster: checked every few seconds, written when it changes, and periodically as "last seen".

The check reads `/version` from the API server, and one object, by name, from its storage. While the storage stalls, the
server still responds to `/version`, `/readyz` and requests that its caches serve, but nothing can be written; a read by
name always goes to the storage. A denied right, or a request to retry later, does not affect the cluster's health. A
cluster that has sent a response above the size limit is not healthy: such responses are ignored.

A cluster that failed twice in a row is unreachable (or refuses our credentials): its containers are marked stale,
because their stored state dates from before the failure. They are marked in small transactions, each with its events,
so that no lock is held for long. When the cluster responds again, they are marked fresh, and all failed work of the
cluster is due immediately.

A server that has not reached the cluster three times in a row releases its lease: another server may reach it.
"""

from __future__ import annotations

import asyncio
from time import monotonic

import msgspec
import structlog

from pilothouse_server.clusters.model import ClusterStatus
from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import (
    AnswerTooLarge,
    ClusterError,
    CredentialsRefused,
    Forbidden,
    StorageStalled,
    Throttled,
    Unauthorized,
    Unreachable,
)
from pilothouse_server.kubernetes.objects import NAMESPACES
from pilothouse_server.reconcile.queue.cluster_clients import FAILURES, ClusterClients, is_out_of_reach
from pilothouse_server.reconcile.queue.leadership import CannotLead, under_lease
from pilothouse_server.reconcile.repository import (
    cluster_status,
    object_status,
    service_status,
    volume_status,
    work_queue,
)
from pilothouse_server.reconcile.repository.leases import Lease
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

# A namespace that exists on every cluster; if it does not, the response still shows that the storage works.
STORED = "kube-system"


class HealthSettings(msgspec.Struct, frozen=True):
    """Times in seconds.

    `failures`: failures in a row after which a cluster counts as away; `let_go`: after which its lease is released.
    """

    probe_seconds: float = 5.0
    answer_seconds: float = 5.0
    failures: int = 2
    let_go: int = FAILURES
    last_seen_seconds: float = 30.0
    batch: int = 200


class Health:
    """The health check of one cluster under one lease.

    `run` works until cancelled; raises LeaseLost and CannotLead.
    """

    def __init__(
        self,
        store: Store,
        clients: ClusterClients,
        cluster_name: str,
        lease: Lease,
        settings: HealthSettings = HealthSettings(),  # noqa: B008 - immutable
    ) -> None:
        self._store = store
        self._clients = clients
        self._cluster_name = cluster_name
        self._lease = lease
        self._settings = settings
        self._failures = 0
        self._written_at: float | None = None

    async def run(self) -> None:
        """Probes until cancelled."""
        while True:
            pause = self._settings.probe_seconds
            try:
                await self.probe()
            except Throttled as error:
                pause = max(pause, error.retry_after_seconds)
            except PilothouseError as error:
                log.warning("health cannot be written", cluster=self._cluster_name, reason=error.reason)
            await asyncio.sleep(pause)

    async def probe(self) -> None:
        """Checks once, and writes changes. Raises Throttled, LeaseLost, CannotLead, PilothouseError."""
        try:
            version = await self._clients.version(self._cluster_name, self._settings.answer_seconds)
            client = await self._clients.client(self._cluster_name)
            await self._check_storage(client)
            client.check_answers()
        except Throttled:
            raise
        except ClusterError as error:
            self._failures += 1
            if self._failures >= self._settings.failures:
                await self._write_away(error)
            if self._failures >= self._settings.let_go and is_out_of_reach(error):
                raise CannotLead(error.message) from error
            return
        recovered = self._failures >= self._settings.failures or self._written_at is None
        self._failures = 0
        if recovered or monotonic() - (self._written_at or 0.0) >= self._settings.last_seen_seconds:
            await self._write_healthy(version, recovered=recovered)

    async def _check_storage(self, client: ClusterClient) -> None:
        try:
            async with asyncio.timeout(self._settings.answer_seconds):
                await client.find(NAMESPACES, None, STORED)
        except Forbidden:
            return
        except TimeoutError:
            raise StorageStalled(self._stalled("no response in time")) from None
        except AnswerTooLarge:
            raise
        except Unreachable as error:
            raise StorageStalled(self._stalled(error.message)) from error

    def _stalled(self, answer: str) -> str:
        return f"cluster {self._cluster_name!r} responds, but its storage does not: {answer}"

    async def _write_healthy(self, version: str, *, recovered: bool) -> None:
        async with under_lease(self._store, self._lease) as transaction:
            await cluster_status.write_healthy(transaction, self._cluster_name, version)
            if recovered:
                await work_queue.requeue_failed(transaction, self._cluster_name)
        if recovered:
            await self._mark(stale=False)
            self._clients.came_back(self._cluster_name, version)
        self._written_at = monotonic()

    async def _write_away(self, error: ClusterError) -> None:
        refused = isinstance(error, Unauthorized | Forbidden | CredentialsRefused)
        status: ClusterStatus = "unauthorized" if refused else "unreachable"
        async with under_lease(self._store, self._lease) as transaction:
            await cluster_status.write_unhealthy(
                transaction, self._cluster_name, status, error.reason, error.message
            )
        self._clients.went_away(self._cluster_name, error)
        await self._mark(stale=True)

    async def _mark(self, *, stale: bool) -> None:
        more = True
        while more:
            async with under_lease(self._store, self._lease) as transaction:
                more = await cluster_status.mark(
                    transaction, self._cluster_name, stale=stale, rows=self._settings.batch
                )
            for rows in (volume_status.VOLUMES, service_status.SERVICES, object_status.OBJECTS):
                async with under_lease(self._store, self._lease) as transaction:
                    more |= await rows.mark(
                        transaction, self._cluster_name, stale=stale, rows=self._settings.batch
                    )
            if more:
                # The rest may be rows that another transaction has locked.
                await asyncio.sleep(0.05)
