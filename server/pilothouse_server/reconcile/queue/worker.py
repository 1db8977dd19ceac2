"""Takes due work rows and brings their resources to where the database says they should be.

    claim (SKIP LOCKED, epoch) -> load -> act on the cluster, outside any transaction -> write back under the epoch

Each cluster has its own number of workers, so that one that is slow or away holds up no other. Every server runs this;
the claims share the work. A claim's lease is short, and renewed while the work is done. Killed anywhere, it runs out
and the next claim starts the same actions again, each of which may be repeated. A failure is due again after a pause
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
from pilothouse_server.reconcile.apply import container_reconciler as reconcile_container
from pilothouse_server.reconcile.apply import namespace_reconciler as reconcile_namespace
from pilothouse_server.reconcile.queue.applied_generations import OwnChanges
from pilothouse_server.reconcile.queue.backoff import after_error, backoff_seconds, is_passing_denial
from pilothouse_server.reconcile.queue.cluster_clients import Clusters
from pilothouse_server.reconcile.queue.leased_client import LeasedClient, LeaseLost
from pilothouse_server.reconcile.queue.resource_reconciler import Noun
from pilothouse_server.reconcile.repository import work_queue as queue
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

# The share of a lease after which nothing is begun any more: an answer takes time to arrive.
_SAFE = 0.75
NOUNS: Mapping[str, Noun] = {"container": reconcile_container, "namespace": reconcile_namespace}


class WorkerSettings(msgspec.Struct, frozen=True):
    """Times in seconds. After about `resync_seconds` a resource is looked at although nothing happened."""

    workers_per_cluster: int = 8
    poll_seconds: float = 0.25
    # What a killed server had claimed waits so long. Nobody waits longer than `act_seconds` for a cluster.
    lease_seconds: float = 4.0
    act_seconds: float = 45.0
    resync_seconds: float = 3600.0


class Worker:
    """The reconciling part of one server. `run` until cancelled; `wake` when there may be work."""

    def __init__(
        self,
        store: Store,
        clusters: Clusters,
        own_changes: OwnChanges,
        settings: WorkerSettings = WorkerSettings(),  # noqa: B008 - immutable
        *,
        nouns: Mapping[str, Noun] = NOUNS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._nouns = nouns
        self._store = store
        self._clusters = clusters
        self._own_changes = own_changes
        self._settings = settings
        self._clock = clock
        self._busy: Counter[str] = Counter()
        self._acting: dict[Work, LeasedClient] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look for work now, not at the next poll."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled. A database that is away is waited for."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew_claims(), name="renew claims")
            failures = 0
            while True:
                self._wake.clear()
                try:
                    claimed_at = self._clock()
                    for work in await self._claim():
                        self._busy[work.cluster_name] += 1
                        group.create_task(
                            self._do(work, claimed_at),
                            name=f"reconcile {work.resource_type} {work.resource_id}",
                        )
                    failures = 0
                    pause = self._settings.poll_seconds
                except PilothouseError as error:
                    failures += 1
                    log.warning("work cannot be claimed", reason=error.reason)
                    pause = backoff_seconds(failures, self._settings.poll_seconds, 10.0)
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _claim(self) -> list[Work]:
        async with self._store.system_read() as transaction:
            due = await queue.due(transaction)
        claimed: list[Work] = []
        for cluster_name, waiting in due.items():
            free = self._settings.workers_per_cluster - self._busy[cluster_name]
            if free <= 0:
                continue
            async with self._store.system_write("reconciler") as transaction:
                claimed += await queue.claim(
                    transaction,
                    cluster_name,
                    rows=min(free, waiting),
                    # Unique to the claim: a row that was removed and made again starts its epochs anew.
                    owner=uuid4().hex,
                    lease_seconds=self._settings.lease_seconds,
                )
        return claimed

    async def _renew_claims(self) -> None:
        """Most work is done before it would be renewed."""
        seconds = self._settings.lease_seconds
        before: set[Work] = set()
        while True:
            await asyncio.sleep(seconds / 4)
            claims = [work for work in self._acting if work in before]
            before = set(self._acting)
            if not claims:
                continue
            asked = self._clock()
            try:
                async with self._store.system_write("reconciler") as transaction:
                    renewed = await queue.renew(transaction, claims, lease_seconds=seconds)
            except PilothouseError as error:
                log.warning("claims cannot be renewed", reason=error.reason)
                continue
            for work in renewed:
                if (client := self._acting.get(work)) is not None:
                    client.renewed(asked + seconds * _SAFE)

    async def _do(self, work: Work, claimed_at: float) -> None:
        try:
            await self.reconcile(work, claimed_at)
        finally:
            self._busy[work.cluster_name] -= 1
            # A worker is free; perhaps more work waits than could be claimed.
            self.wake()

    async def reconcile(self, work: Work, claimed_at: float | None = None) -> None:
        """One row, claimed just now or at that time, from its loading to its release.

        Logs what fails; raises nothing but cancellation.
        """
        try:
            await self._reconcile(work, self._clock() if claimed_at is None else claimed_at)
        except LeaseLost:
            log.warning("lease lost", resource_type=work.resource_type, resource_id=work.resource_id)
            await self._ask_again(work)
        except PilothouseError as error:
            # The database is away or busy: the lease runs out, and the work is claimed again.
            log.warning("work cannot be written back", reason=error.reason, resource_id=work.resource_id)
        except Exception:
            log.exception(
                "reconciliation failed", resource_type=work.resource_type, resource_id=work.resource_id
            )
            await self._give_up(work)

    async def _reconcile(self, work: Work, claimed_at: float) -> None:
        noun = self._nouns[work.resource_type]
        loaded = await noun.load(self._store, work)
        if loaded is None:
            await self._remove(work)
            return
        outcome: object
        try:
            outcome = await self._act(noun, work, loaded, claimed_at)
        except TimeoutError:
            outcome = Unreachable(f"cluster {work.cluster_name!r} did not answer in time")
        except ClusterError as error:
            outcome = error
            if is_passing_denial(error, work.attempts):
                await self._try_again(work, error)
                return
        async with self._store.system_write("reconciler") as transaction:
            written = await noun.write_back(transaction, work, loaded, outcome)
            if written.removed:
                await queue.remove(transaction, written.resource_type, work.resource_id)
            elif isinstance(outcome, ClusterError):
                attempts = work.attempts + 1
                await queue.release(
                    transaction,
                    work,
                    due_in_seconds=after_error(outcome, attempts),
                    attempts=attempts,
                    error=outcome.message,
                )
            else:
                resync = backoff_seconds(1, self._settings.resync_seconds, self._settings.resync_seconds)
                again = written.again_seconds
                await queue.release(transaction, work, due_in_seconds=resync if again is None else again)
        if written.own_change is not None:
            self._own_changes.note(*written.own_change)

    async def _act(self, noun: Noun, work: Work, loaded: Any, claimed_at: float) -> object:
        ends = claimed_at + self._settings.lease_seconds * _SAFE
        async with asyncio.timeout(self._settings.act_seconds):
            client = LeasedClient(await self._clusters.client(work.cluster_name), ends)
            self._acting[work] = client
            try:
                return await noun.act(client, loaded)
            finally:
                del self._acting[work]

    async def _try_again(self, work: Work, error: ClusterError) -> None:
        """Nothing is written of a failure that is likely to be over at the next attempt."""
        attempts = work.attempts + 1
        async with self._store.system_write("reconciler") as transaction:
            await queue.release(
                transaction,
                work,
                due_in_seconds=after_error(error, attempts),
                attempts=attempts,
                error=error.message,
            )

    async def _remove(self, work: Work) -> None:
        async with self._store.system_write("reconciler") as transaction:
            if await queue.hold(transaction, work):
                await queue.remove(transaction, work.resource_type, work.resource_id)

    async def _ask_again(self, work: Work) -> None:
        try:
            async with self._store.system_write("reconciler") as transaction:
                if work.resource_type == "container":
                    await queue.look_again(transaction, [work.resource_id])
                elif work.resource_type == "namespace":
                    await queue.look_again_at_namespaces(transaction, [work.resource_id])
                else:
                    await queue.look_again_at(transaction, work.resource_type, work.resource_id)
        except PilothouseError as error:
            log.warning("work cannot be asked for", reason=error.reason, resource_id=work.resource_id)

    async def _give_up(self, work: Work) -> None:
        attempts = work.attempts + 1
        try:
            async with self._store.system_write("reconciler") as transaction:
                await queue.release(
                    transaction,
                    work,
                    due_in_seconds=backoff_seconds(attempts, 2.0, 300.0),
                    attempts=attempts,
                    error="internal error, see the server's log",
                )
        except PilothouseError as error:
            log.warning("work cannot be released", reason=error.reason, resource_id=work.resource_id)
