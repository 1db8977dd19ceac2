"""Takes due work rows and brings their resources to the state in the database.

    lease (SKIP LOCKED, epoch) -> load -> act on the cluster, outside any transaction -> write back under the epoch

Due work is leased and loaded in batches; each resource is acted on by itself; finished work is written back
in batches. So a server that is busy with calls, where each step has to wait for its turn, needs few steps for
much work. If a batch fails, each of its items is tried by itself, and the rest continues.

Each cluster has its own number of workers, so a cluster that is slow or away delays no other. No namespace gets
all workers of its cluster. Every server runs this; the leases divide the work between servers.

A lease is short, and renewed while the work is in hand. If the server is killed at any point, the lease expires,
and the next holder repeats the same actions, which are idempotent. Failed work is due again after a growing pause; a
mutation makes it due immediately.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Final
from uuid import uuid4

import msgspec
import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes.errors import ClusterError, Unreachable
from pilothouse_server.reconcile.queue.applied_generations import AppliedGenerations
from pilothouse_server.reconcile.queue.backoff import after_error, is_passing_denial
from pilothouse_server.reconcile.queue.cluster_clients import ClusterClients
from pilothouse_server.reconcile.queue.held_leases import HeldLeases
from pilothouse_server.reconcile.queue.leased_client import LeaseLost
from pilothouse_server.reconcile.queue.resource_reconciler import Done, Progress, ResourceReconciler, Result
from pilothouse_server.reconcile.queue.write_batcher import MOST_GATHER_SECONDS, WriteBatcher, is_away
from pilothouse_server.reconcile.repository import work_queue
from pilothouse_server.reconcile.repository.work_queue import Release, Work
from pilothouse_server.runtime.backoff import backoff_seconds
from pilothouse_server.runtime.log_lines import without_values
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

_SHORTEST_PAUSE_SECONDS = 0.02
# Work in hand per cluster, as a multiple of its workers; most of it waits to be loaded or written back.
_MOST_IN_HAND = 4
# `_WAITING` is loaded for a resource whose step of an application has not begun; such work is checked again after
# `_WAITING_SECONDS`.
_WAITING: Final = object()
_WAITING_SECONDS = 3600.0
# By type of resource; each reconciler has its own types for what it loads and what its `act` returns.
AnyReconciler = ResourceReconciler[Any, Any]
Reconcilers = Mapping[str, AnyReconciler]
_Done = Done[Any, Any]


class WorkerSettings(msgspec.Struct, frozen=True):
    """Times in seconds.

    A resource is checked after about `resync_seconds` even if nothing happened.
    """

    workers_per_cluster: int = 64
    # While work is in hand: how long the worker waits for more work before it leases, and for more results before it
    # writes them back. If the lease or the write itself takes longer, so does the wait, which leaves half of the time
    # to other users of the event loop and the database.
    gather_seconds: float = 0.03
    # Mutations notify the worker, and it knows when later work is due. This interval is for work that observers
    # enqueue, and for the work of a killed server.
    poll_seconds: float = 1.0
    # The work of a killed server waits for `lease_seconds`. No action takes longer than `act_seconds`.
    lease_seconds: float = 4.0
    act_seconds: float = 45.0
    resync_seconds: float = 86400.0


class Worker:
    """The workers of one server. Call `run`, and `wake` when there may be work."""

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
        # All leased work; and the part of it whose `act` has not ended.
        self._in_hand: set[Work] = set()
        self._acting: set[Work] = set()
        self._leases = HeldLeases(store, settings.lease_seconds, clock)
        # By cluster and type, so that a result never waits for results of another cluster or type.
        self._write_backs: dict[tuple[str, str], WriteBatcher[Work, _Done, Result]] = {}
        # Whether the last lease took as much as some cluster was allowed: then more may be due.
        self._more = False
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Makes the worker check for work now, not at the next poll."""
        self._wake.set()

    async def run(self) -> None:
        """Works until cancelled. While the database is away, it retries."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._leases.run(), name="renew leases")
            failures = 0
            while True:
                self._wake.clear()
                leased_at = self._clock()
                try:
                    leased, next_seconds = await self._lease()
                    for cluster_name, works in leased.items():
                        self._take_in_hand(works)
                        group.create_task(self.reconcile(works, leased_at), name=f"reconcile {cluster_name}")
                    failures = 0
                    pause = self._settings.poll_seconds
                    if next_seconds is not None:
                        pause = min(pause, max(_SHORTEST_PAUSE_SECONDS, next_seconds))
                except PilothouseError as error:
                    failures += 1
                    log.warning("work cannot be leased", reason=error.reason)
                    pause = backoff_seconds(failures, self._settings.poll_seconds, 10.0)
                await self._pause(pause, self._clock() - leased_at)

    async def _pause(self, seconds: float, took: float) -> None:
        """Waits until there may be work, or for `seconds`. With work in hand it first waits as long as leasing
        `took`, so that more work comes into the next batch.
        """
        if self._in_hand:
            await asyncio.sleep(max(self._settings.gather_seconds, min(took, MOST_GATHER_SECONDS)))
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _lease(self) -> tuple[dict[str, list[Work]], float | None]:
        """Leases due work, by cluster; returns the time until more will be due."""
        most = self._settings.workers_per_cluster
        left = self._clients.left()
        free = self._free(most) | dict.fromkeys(left, 0)
        async with self._store.system_call() as connection:
            leased = await work_queue.lease(
                connection,
                # Unique to the lease: a row that was removed and created again starts its epochs again.
                owner=uuid4().hex,
                lease_seconds=self._settings.lease_seconds,
                most=most,
                free=free,
                held=Counter(work.namespace_id for work in self._acting if work.namespace_id),
            )
        by_cluster: defaultdict[str, list[Work]] = defaultdict(list)
        for work in leased.works:
            by_cluster[work.cluster_name].append(work)
        self._more = any(
            len(by_cluster[name]) >= free.get(name, most) for name in {*free, *by_cluster} - left
        )
        return by_cluster, leased.next_seconds

    def _free(self, most: int) -> dict[str, int]:
        """Returns how many more rows may be leased of each cluster that has work in hand."""
        in_hand = Counter(work.cluster_name for work in self._in_hand)
        acting = Counter(work.cluster_name for work in self._acting)
        return {
            name: max(0, min(most - acting[name], _MOST_IN_HAND * most - held))
            for name, held in in_hand.items()
        }

    def _take_in_hand(self, works: Sequence[Work]) -> None:
        self._in_hand.update(works)
        self._acting.update(works)

    async def reconcile(self, works: Sequence[Work], leased_at: float | None = None) -> None:
        """Reconciles leased rows of one cluster, from their loading to their release.

        The rows were leased just now or at the given time. Logs failures; raises only cancellation.
        """
        self._take_in_hand(works)
        self._leases.add(works, self._clock() if leased_at is None else leased_at)
        by_type: defaultdict[str, list[Work]] = defaultdict(list)
        for work in works:
            by_type[work.resource_type].append(work)
        async with asyncio.TaskGroup() as group:
            for resource_type, those in by_type.items():
                reconciler = self._reconcilers.get(resource_type)
                most = 1 if reconciler is None else reconciler.batch_size
                for first in range(0, len(those), most):
                    group.create_task(self._load_and_go_on(group, reconciler, those[first : first + most]))

    async def _load_and_go_on(
        self, group: asyncio.TaskGroup, reconciler: AnyReconciler | None, works: Sequence[Work]
    ) -> None:
        """Loads work of one type; each item then continues by itself."""
        found = {} if reconciler is None else await self._load(reconciler, works)
        for work in works:
            group.create_task(
                self._go_on(reconciler, work, found.get(work)),
                name=f"reconcile {work.resource_type} {work.resource_id}",
            )

    async def _load(self, reconciler: AnyReconciler, works: Sequence[Work]) -> Mapping[Work, Any]:
        """Returns each loaded row, or the reason why it cannot be loaded; deleted rows are left out."""
        store = self._store
        reading = (
            store.system_read(snapshot=True, timed=False) if reconciler.in_snapshot else store.system_look()
        )
        try:
            async with reading as transaction:
                found = await reconciler.load(transaction, works)
                waiting = await work_queue.waiting(transaction, works)
            return {**found, **dict.fromkeys(waiting, _WAITING)}
        except Exception as error:  # noqa: BLE001 - passed on to the callers concerned
            if len(works) == 1 or is_away(error):
                return dict.fromkeys(works, error)
        loaded: dict[Work, Any] = {}
        for work in works:
            loaded.update(await self._load(reconciler, [work]))
        return loaded

    async def _go_on(self, reconciler: AnyReconciler | None, work: Work, loaded: Any) -> None:
        """Acts on a loaded row, and has the result written back."""
        try:
            if reconciler is None:
                # A later release has this type: its servers do the work.
                raise LookupError(f"no reconciler for {work.resource_type}")
            if isinstance(loaded, Exception):
                raise loaded
            if loaded is _WAITING:
                await self._put_back(work)
            elif loaded is None:
                await self._remove(work)
            else:
                together = self._together(reconciler, work)
                with together.expected(work):
                    await self._act_and_write(reconciler, work, loaded, together)
        except LeaseLost:
            log.warning("lease lost", resource_type=work.resource_type, resource_id=work.resource_id)
            await self._enqueue_again(work)
        except PilothouseError as error:
            # The database is away or busy: the lease expires, and the work is leased again.
            log.warning("work cannot be written back", reason=error.reason, resource_id=work.resource_id)
        except Exception as error:
            log.error(
                "reconciliation failed",
                resource_type=work.resource_type,
                resource_id=work.resource_id,
                exc_info=without_values(error),
            )
            await self._give_up(work)
        finally:
            self._leases.drop(work)
            self._in_hand.discard(work)
            self._acted(work)
            # A mutation may have made it due again.
            self.wake()

    async def _act_and_write(
        self, reconciler: AnyReconciler, work: Work, loaded: Any, together: WriteBatcher[Work, _Done, Result]
    ) -> None:
        outcome: Progress | ClusterError
        try:
            async with asyncio.timeout(self._settings.act_seconds):
                client = self._leases.client(work, await self._clients.client(work.cluster_name))
                outcome = await reconciler.act(client, loaded)
        except TimeoutError:
            outcome = Unreachable(f"cluster {work.cluster_name!r} did not respond in time")
        except ClusterError as error:
            outcome = error
            self._clients.note(work.cluster_name, error)
            if is_passing_denial(error, work.attempts):
                await self._try_again(work, error)
                return
        self._acted(work)
        result = await together.write(work, Done(work, loaded, outcome))
        if result.lost:
            raise LeaseLost
        if result.applied is not None:
            self._applied_generations.record(*result.applied)

    def _acted(self, work: Work) -> None:
        """Records that a worker is free.

        Wakes the worker if more work may be due than it could lease.
        """
        self._acting.discard(work)
        if self._more:
            self.wake()

    def _together(self, reconciler: AnyReconciler, work: Work) -> WriteBatcher[Work, _Done, Result]:
        key = (work.cluster_name, work.resource_type)
        if (found := self._write_backs.get(key)) is None:
            found = self._write_backs[key] = WriteBatcher(
                lambda dones: self._write_back(reconciler, dones),
                most=reconciler.batch_size,
                gather_seconds=self._settings.gather_seconds,
            )
        return found

    async def _write_back(self, reconciler: AnyReconciler, dones: Sequence[_Done]) -> Mapping[Work, Result]:
        written = dict(await reconciler.write_batch(self._store, dones, self._resync_seconds))
        rest = [done for done in dones if done.work not in written]
        return {**written, **await self._write_rest(reconciler, rest)} if rest else written

    async def _write_rest(self, reconciler: AnyReconciler, dones: Sequence[_Done]) -> Mapping[Work, Result]:
        async with self._store.system_write("reconciler") as transaction:
            results = await reconciler.write_back(transaction, dones)
            releases = []
            for done in dones:
                result = results.get(done.work)
                if result is None or result.lost:
                    continue
                if result.removed:
                    await work_queue.remove(transaction, done.work.resource_type, done.work.resource_id)
                else:
                    releases.append(self._release(done, result))
            await work_queue.release(transaction, releases)
        return results

    def _release(self, done: _Done, result: Result) -> Release:
        work, outcome = done.work, done.outcome
        if isinstance(outcome, ClusterError):
            return _after(work, outcome)
        seconds = self._resync_seconds() if result.again_seconds is None else result.again_seconds
        return Release(work, seconds, objects=outcome.objects)

    def _resync_seconds(self) -> float:
        return backoff_seconds(1, self._settings.resync_seconds, self._settings.resync_seconds)

    async def _try_again(self, work: Work, error: ClusterError) -> None:
        """Releases work whose failure is likely to end by the next attempt, without writing a status."""
        async with self._store.system_write("reconciler") as transaction:
            await work_queue.release(transaction, [_after(work, error)])

    async def _remove(self, work: Work) -> None:
        async with self._store.system_write("reconciler") as transaction:
            if await work_queue.hold(transaction, [work]):
                await work_queue.remove(transaction, work.resource_type, work.resource_id)

    async def _put_back(self, work: Work) -> None:
        """Ends the lease of held work; the step of its application makes it due."""
        async with self._store.system_write("reconciler") as transaction:
            await work_queue.release(transaction, [Release(work, _WAITING_SECONDS, work.attempts)])

    async def _enqueue_again(self, work: Work) -> None:
        try:
            async with self._store.system_write("reconciler") as transaction:
                if work.resource_type == "container":
                    await work_queue.requeue_containers(transaction, [work.resource_id])
                elif work.resource_type == "namespace":
                    await work_queue.requeue_namespaces(transaction, [work.resource_id])
                else:
                    await work_queue.requeue(transaction, [(work.resource_type, work.resource_id)])
        except PilothouseError as error:
            log.warning("work cannot be enqueued", reason=error.reason, resource_id=work.resource_id)

    async def _give_up(self, work: Work) -> None:
        attempts = work.attempts + 1
        seconds = backoff_seconds(attempts, 2.0, 300.0)
        given_up = Release(work, seconds, attempts, "internal error, see the server's log")
        try:
            async with self._store.system_write("reconciler") as transaction:
                await work_queue.release(transaction, [given_up])
        except PilothouseError as error:
            log.warning("work cannot be released", reason=error.reason, resource_id=work.resource_id)


def _after(work: Work, error: ClusterError) -> Release:
    attempts = work.attempts + 1
    return Release(work, after_error(error, attempts), attempts, error.message)
