"""The leases on the work that a server has in hand: when each ends by this server's clock, and their renewal.

Work is in hand from its lease to its release, while it is loaded, acted on, or waits to be written back. On an
overloaded server each of these steps may take longer than a lease, and if a lease expires, the work is done twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.reconcile.repository import work_queue
from pilothouse_server.reconcile.repository.work_queue import Work
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

# The share of a lease after which no write is started: a response takes time to arrive.
_SAFE = 0.75


class HeldLeases:
    """Work in hand and its leases of `seconds`. `run` renews them until cancelled."""

    def __init__(self, store: Store, seconds: float, clock: Callable[[], float]) -> None:
        self._store = store
        self._seconds = seconds
        self._clock = clock
        self._ends: dict[Work, float] = {}
        self._clients: dict[Work, LeasedClient] = {}

    def add(self, works: Sequence[Work], leased_at: float) -> None:
        """Adds work that was leased at `leased_at`."""
        self._ends |= dict.fromkeys(works, leased_at + self._seconds * _SAFE)

    def drop(self, work: Work) -> None:
        """Drops work: its lease is released, lost, or left to expire."""
        self._ends.pop(work, None)
        self._clients.pop(work, None)

    def client(self, work: Work, client: ClusterClient) -> LeasedClient:
        """Returns the client that writes for this work until its lease ends."""
        leased = self._clients[work] = LeasedClient(client, self._ends[work])
        return leased

    async def run(self) -> None:
        """Renews leases that have lasted since the pass before; most work is done sooner."""
        before: set[Work] = set()
        while True:
            await asyncio.sleep(self._seconds / 4)
            held = [work for work in self._ends if work in before]
            before = set(self._ends)
            if held:
                await self._renew(held)

    async def _renew(self, held: Sequence[Work]) -> None:
        asked = self._clock()
        try:
            async with self._store.system_write("reconciler") as transaction:
                renewed = await work_queue.renew(transaction, held, lease_seconds=self._seconds)
        except PilothouseError as error:
            log.warning("leases cannot be renewed", reason=error.reason)
            return
        for work in renewed:
            if work in self._ends:
                self._ends[work] = asked + self._seconds * _SAFE
            if (client := self._clients.get(work)) is not None:
                client.renewed(self._ends[work])
