"""Takes due work rows and brings their resources to where the database says they should be.

    lease (SKIP LOCKED, epoch) -> load -> act on the cluster, outside any transaction -> write back under the epoch

Each cluster has its own number of workers, so that one that is slow or away holds up no other. Every server runs this;
the leases share the work. A lease is short, and renewed while the work is done. Killed anywhere, it runs out, and who
leases the work next starts the same actions again, each of which may be repeated. A failure is due again after a pause
that grows; a mutation makes it due at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any
from uuid import uuid4

import msgspec
import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes.errors import ClusterError, Unreachable
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.reconcile.queue.backoff import after_error, backoff_seconds, is_passing_denial
from pilothouse_server.reconcile.queue.cluster_clients import ClusterClients
from pilothouse_server.reconcile.queue.leased_client import LeasedClient, LeaseLost
from pilothouse_server.reconcile.queue.resource_reconciler import Acted, Loaded, ResourceReconciler
from pilothouse_server.reconcile.repository import work_queue
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

# The share of a lease after which nothing is begun any more: an answer takes time to arrive.
_SAFE = 0.75
_SHORTEST_PAUSE_SECONDS = 0.02
# By type of resource; each has types of its own for what it loads and what its act returns.
Reconcilers = Mapping[str, ResourceReconciler[Any, Any]]


class WorkerSettings(msgspec.Struct, frozen=True):
    """Times in seconds. After about `resync_seconds` a resource is looked at although nothing happened."""

    workers_per_cluster: int = 8
    # What a mutation makes due is told at once, and when more is due is known: this is for what observers enqueue, and
    # for the work of a server that was killed.
    poll_seconds: float = 1.0
    # What a killed server had leased waits so long. Nobody waits longer than `act_seconds` for a cluster.
    lease_seconds: float = 4.0
    act_seconds: float = 45.0
    resync_seconds: float = 3600.0


class Worker:
    """The reconciling part of one server. `run` until cancelled; `wake` when there may be work."""

    def __init__(
        self,
        store: Store,
        clients: ClusterClients,
        applied_generations: AppliedGenerations,
        settings: WorkerSettings = WorkerSettings(),  # noqa: B008 - immutable
        *,
        reconcilers: Reconcilers,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._reconcilers = reconcilers
        self._store = store
        self._clients = clients
        self._applied_generations = applied_generations
        self._settings = settings
        self._clock = clock
        self._busy: Counter[str] = Counter()
        self._acting: dict[Work, LeasedClient] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Looks for work now, not at the next poll."""
        self._wake.set()

    async def run(self) -> None:
        """Works until cancelled. A database that is away is waited for."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew_leases(), name="renew leases")
            failures = 0
            while True:
                self._wake.clear()
                try:
                    leased_at = self._clock()
                    leased, next_seconds = await self._lease()
                    for work in leased:
                        self._busy[work.cluster_name] += 1
                        group.create_task(
                            self._do(work, leased_at),
                            name=f"reconcile {work.resource_type} {work.resource_id}",
                        )
                    failures = 0
                    pause = self._settings.poll_seconds
                    if next_seconds is not None:
                        pause = min(pause, max(_SHORTEST_PAUSE_SECONDS, next_seconds))
                except PilothouseError as error:
                    failures += 1
                    log.warning("work cannot be leased", reason=error.reason)
                    pause = backoff_seconds(failures, self._settings.poll_seconds, 10.0)
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _lease(self) -> tuple[list[Work], float | None]:
        """Leases what is due; tells how long it is until more will be."""
        async with self._store.system_read() as transaction:
            due = await work_queue.due(transaction)
        leased: list[Work] = []
        for cluster_name, waiting in due.waiting.items():
            free = self._settings.workers_per_cluster - self._busy[cluster_name]
            if free <= 0:
                continue
            async with self._store.system_write("reconciler") as transaction:
                leased += await work_queue.lease(
                    transaction,
                    cluster_name,
                    rows=min(free, waiting),
                    # Unique to the lease: a row that was removed and made again starts its epochs anew.
                    owner=uuid4().hex,
                    lease_seconds=self._settings.lease_seconds,
                )
        return leased, due.next_seconds

    async def _renew_leases(self) -> None:
        """Most work is done before it would be renewed."""
        seconds = self._settings.lease_seconds
        before: set[Work] = set()
        while True:
            await asyncio.sleep(seconds / 4)
            held = [work for work in self._acting if work in before]
            before = set(self._acting)
            if not held:
                continue
            asked = self._clock()
            try:
                async with self._store.system_write("reconciler") as transaction:
                    renewed = await work_queue.renew(transaction, held, lease_seconds=seconds)
            except PilothouseError as error:
                log.warning("leases cannot be renewed", reason=error.reason)
                continue
            for work in renewed:
                if (client := self._acting.get(work)) is not None:
                    client.renewed(asked + seconds * _SAFE)

    async def _do(self, work: Work, leased_at: float) -> None:
        try:
            await self.reconcile(work, leased_at)
        finally:
            self._busy[work.cluster_name] -= 1
            # A worker is free; perhaps more work waits than could be leased.
            self.wake()

    async def reconcile(self, work: Work, leased_at: float | None = None) -> None:
        """Reconciles one leased row, from its loading to its release; leased just now or at that time.

        Logs what fails; raises nothing but cancellation.
        """
        try:
            await self._reconcile(work, self._clock() if leased_at is None else leased_at)
        except LeaseLost:
            log.warning("lease lost", resource_type=work.resource_type, resource_id=work.resource_id)
            await self._enqueue_again(work)
        except PilothouseError as error:
            # The database is away or busy: the lease runs out, and the work is leased again.
            log.warning("work cannot be written back", reason=error.reason, resource_id=work.resource_id)
        except Exception:
            log.exception(
                "reconciliation failed", resource_type=work.resource_type, resource_id=work.resource_id
            )
            await self._give_up(work)

    async def _reconcile(self, work: Work, leased_at: float) -> None:
        await self._reconcile_with(self._reconcilers[work.resource_type], work, leased_at)

    async def _reconcile_with(
        self, reconciler: ResourceReconciler[Loaded, Acted], work: Work, leased_at: float
    ) -> None:
        loaded = await reconciler.load(self._store, work)
        if loaded is None:
            await self._remove(work)
            return
        outcome: Acted | ClusterError
        try:
            outcome = await self._act(reconciler, work, loaded, leased_at)
        except TimeoutError:
            outcome = Unreachable(f"cluster {work.cluster_name!r} did not answer in time")
        except ClusterError as error:
            outcome = error
            if is_passing_denial(error, work.attempts):
                await self._try_again(work, error)
                return
        async with self._store.system_write("reconciler") as transaction:
            result = await reconciler.write_back(transaction, work, loaded, outcome)
            if result.removed:
                await work_queue.remove(transaction, work.resource_type, work.resource_id)
            elif isinstance(outcome, ClusterError):
                attempts = work.attempts + 1
                await work_queue.release(
                    transaction,
                    work,
                    due_in_seconds=after_error(outcome, attempts),
                    attempts=attempts,
                    error=outcome.message,
                )
            else:
                resync = backoff_seconds(1, self._settings.resync_seconds, self._settings.resync_seconds)
                again = result.again_seconds
                await work_queue.release(transaction, work, due_in_seconds=resync if again is None else again)
        if result.applied is not None:
            self._applied_generations.record(*result.applied)

    async def _act(
        self, reconciler: ResourceReconciler[Loaded, Acted], work: Work, loaded: Loaded, leased_at: float
    ) -> Acted:
        ends = leased_at + self._settings.lease_seconds * _SAFE
        async with asyncio.timeout(self._settings.act_seconds):
            client = LeasedClient(await self._clients.client(work.cluster_name), ends)
            self._acting[work] = client
            try:
                return await reconciler.act(client, loaded)
            finally:
                del self._acting[work]

    async def _try_again(self, work: Work, error: ClusterError) -> None:
        """Nothing is written of a failure that is likely to be over at the next attempt."""
        attempts = work.attempts + 1
        async with self._store.system_write("reconciler") as transaction:
            await work_queue.release(
                transaction,
                work,
                due_in_seconds=after_error(error, attempts),
                attempts=attempts,
                error=error.message,
            )

    async def _remove(self, work: Work) -> None:
        async with self._store.system_write("reconciler") as transaction:
            if await work_queue.hold(transaction, work):
                await work_queue.remove(transaction, work.resource_type, work.resource_id)

    async def _enqueue_again(self, work: Work) -> None:
        try:
            async with self._store.system_write("reconciler") as transaction:
                if work.resource_type == "container":
                    await work_queue.requeue_containers(transaction, [work.resource_id])
                elif work.resource_type == "namespace":
                    await work_queue.requeue_namespaces(transaction, [work.resource_id])
                else:
                    await work_queue.requeue(transaction, work.resource_type, work.resource_id)
        except PilothouseError as error:
            log.warning("work cannot be enqueued", reason=error.reason, resource_id=work.resource_id)

    async def _give_up(self, work: Work) -> None:
        attempts = work.attempts + 1
        try:
            async with self._store.system_write("reconciler") as transaction:
                await work_queue.release(
                    transaction,
                    work,
                    due_in_seconds=backoff_seconds(attempts, 2.0, 300.0),
                    attempts=attempts,
                    error="internal error, see the server's log",
                )
        except PilothouseError as error:
            log.warning("work cannot be released", reason=error.reason, resource_id=work.resource_id)
