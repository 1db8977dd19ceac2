"""One server at a time does a piece of work: takes the lease, renews it, and stops before it can have run out.

The holder stops by its own clock: when no renewal went through for the lease's length, less a margin, the work is
cancelled, whatever the reason. Whoever was frozen and did not notice is stopped by the database, which refuses its
epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic

import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.reconcile.queue.leased_client import LeaseLost
from pilothouse_server.reconcile.repository import leases
from pilothouse_server.reconcile.repository.leases import Lease
from pilothouse_server.store.unit_of_work import Store, Transaction
from pilothouse_server.tasks import cancel_and_wait

log = structlog.get_logger(__name__)

# What a killed server watched is watched by nobody for so long.
LEASE_SECONDS = 5.0


async def lead(
    store: Store,
    name: str,
    owner: str,
    work: Callable[[Lease], Awaitable[None]],
    *,
    seconds: float = LEASE_SECONDS,
) -> None:
    """Does `work` whenever the lease `name` is ours, until cancelled. `work` runs until it is cancelled or raises.

    `work` raises LeaseLost when the database refuses its epoch; other exceptions are logged, and it starts again.
    """
    while True:
        lease = await _take(store, name, owner, seconds)
        if lease is not None:
            taken = monotonic()
            try:
                await _work(store, lease, work, seconds, taken)
            except LeaseLost:
                log.warning("lease lost", lease=name)
            except Exception:
                log.exception("work under a lease failed", lease=name)
            finally:
                await _give_up(store, lease)
        await asyncio.sleep(seconds / 5 * random.uniform(0.5, 1.5))  # noqa: S311 - jitter


@asynccontextmanager
async def under_lease(store: Store, lease: Lease) -> AsyncIterator[Transaction]:
    """A transaction that commits only while the lease is held. Raises LeaseLost."""
    async with store.system_write("observer") as transaction:
        if not await leases.hold(transaction, lease):
            raise LeaseLost
        yield transaction


async def _work(
    store: Store, lease: Lease, work: Callable[[Lease], Awaitable[None]], seconds: float, taken: float
) -> None:
    running = asyncio.ensure_future(work(lease))
    ends = taken + seconds * 0.8
    try:
        while True:
            done, _ = await asyncio.wait([running], timeout=seconds / 3)
            if done:
                running.result()
                return
            asked = monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, ends - asked)):
                    if await _take(store, lease.name, lease.owner, seconds) == lease:
                        ends = asked + seconds * 0.8
            if monotonic() >= ends:
                raise LeaseLost
    finally:
        await cancel_and_wait(running)


async def _take(store: Store, name: str, owner: str, seconds: float) -> Lease | None:
    try:
        async with store.system_write("leases") as transaction:
            return await leases.take(transaction, name, owner, seconds)
    except PilothouseError as error:
        log.warning("lease cannot be taken", lease=name, reason=error.reason)
        return None


async def _give_up(store: Store, lease: Lease) -> None:
    try:
        async with store.system_write("leases") as transaction:
            await leases.give_up(transaction, lease)
    except PilothouseError:
        log.warning("lease runs out by itself", lease=lease.name)
