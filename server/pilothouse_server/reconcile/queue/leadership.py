"""Leadership: one server at a time takes a lease, renews it, and stops its work before the lease can have run out.

The holder stops by its own clock: if no renewal has succeeded for the lease's length, less a margin, the work is
cancelled. If a holder was frozen and did not notice, the database refuses its epoch. The database's clock may have been
wrong when the lease was written, so a waiting server also uses its own clock: it treats a lease that stays unrenewed
for twice its length as expired.

A holder that cannot do the work (`CannotLead`) releases the lease, so that another server can take over. It is a
candidate again once it can do the work. If no server can, the lease stays free, except for one attempt a minute, which
records the state.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic

import msgspec
import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.reconcile.queue.leased_client import LeaseLost
from pilothouse_server.reconcile.repository import leases
from pilothouse_server.reconcile.repository.leases import Lease, SeenLease
from pilothouse_server.runtime.log_lines import reason_of, without_values
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction

log = structlog.get_logger(__name__)

# The longest time for which nobody observes the clusters of a killed server.
LEASE_SECONDS = 5.0
# How long a released lease is left to servers that may be able to do its work.
FREE_SECONDS = 60.0

Work = Callable[[Lease], Awaitable[None]]


class CannotLead(Exception):
    """This server cannot do the work, for the reason in the message.

    Another server may be able to.
    """


async def _always() -> bool:
    return True


async def _passed_over(_elsewhere: bool) -> None:
    """Does nothing: the default for passes without work."""


class StandingBack(msgspec.Struct, frozen=True):
    """The behaviour of a server that does not hold the lease.

    `led_elsewhere` is called after each read of the lease, with whether another server holds it. A server that released
    the lease because it could not do the work calls `can_lead` every `look_seconds`, and is a candidate again once that
    returns true. It also takes a lease that has been free for `free_seconds`.
    """

    can_lead: Callable[[], Awaitable[bool]] = _always
    led_elsewhere: Callable[[bool], Awaitable[None]] = _passed_over
    look_seconds: float = 5.0
    free_seconds: float = FREE_SECONDS


class _Sight:
    """A lease as this server read it while another may hold it, with times by this server's clock."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: SeenLease | None = None
        self._since = self._free_since = monotonic()

    def note(self, seen: SeenLease | None) -> None:
        """Records the lease as just read; None means that there is no lease."""
        before, self._seen = self._seen, seen
        if before is None or seen is None or not seen.is_as(before):
            self._since = monotonic()
            if before is not None and seen is not None and seen.epoch != before.epoch:
                # Another server held it in between, for however short a time.
                self._free_since = monotonic()
        if self.is_held:
            self._free_since = monotonic()

    def let_go(self) -> None:
        """Records that this server has just released the lease."""
        self._seen, self._free_since = None, monotonic()

    @property
    def unrenewed(self) -> SeenLease | None:
        """The lease, if it has been unrenewed for so long that its holder must be gone."""
        if self._seen is None or self._seen.owner is None:
            return None
        return self._seen if monotonic() - self._since >= 2 * self._seconds else None

    @property
    def epoch(self) -> int | None:
        """The epoch at the last read; None if there is no lease."""
        return None if self._seen is None else self._seen.epoch

    @property
    def is_held(self) -> bool:
        """Whether another server holds the lease."""
        seen = self._seen
        return (
            seen is not None and seen.owner is not None and seen.ahead_seconds > 0 and self.unrenewed is None
        )

    def free_for(self) -> float:
        """Returns the seconds since a server last held the lease."""
        return monotonic() - self._free_since


async def lead(
    store: Store,
    name: str,
    owner: str,
    work: Work,
    *,
    seconds: float = LEASE_SECONDS,
    standing_back: StandingBack = StandingBack(),  # noqa: B008 - immutable
) -> None:
    """Does `work` whenever this server holds the lease `name`, until cancelled.

    `work` runs until it is cancelled or raises: LeaseLost when the database refuses its epoch, or CannotLead. Other
    exceptions are logged, and it starts again.
    """
    sight = _Sight(seconds)
    lease: Lease | None = None
    while True:
        if lease is None:
            lease = await _take(store, name, owner, seconds, sight)
            await standing_back.led_elsewhere(sight.is_held)
        if lease is not None and not await _has_led(store, lease, work, seconds):
            lease = await _stand_back(store, name, owner, seconds, sight, standing_back)
        else:
            lease = None
            await asyncio.sleep(seconds / 5 * random.uniform(0.5, 1.5))  # noqa: S311 - jitter


async def _has_led(store: Store, lease: Lease, work: Work, seconds: float) -> bool:
    """Does the work under the lease; returns whether this server can do it."""
    taken = monotonic()
    try:
        await _work(store, lease, work, seconds, taken)
    except LeaseLost:
        log.warning("lease lost", lease=lease.name)
    except CannotLead as error:
        # The health check logs that the cluster is away.
        log.debug("lease is released: this server cannot do its work", lease=lease.name, why=str(error))
        return False
    except Exception as error:
        if reason := reason_of(error):
            log.warning("work under a lease failed", lease=lease.name, reason=reason)
        else:
            log.error("work under a lease failed", lease=lease.name, exc_info=without_values(error))
    finally:
        await _give_up(store, lease)
    return True


async def _stand_back(
    store: Store, name: str, owner: str, seconds: float, sight: _Sight, settings: StandingBack
) -> Lease | None:
    """Returns None once this server can do the work, or the lease if it was free for long."""
    sight.let_go()
    # Jitter: two servers that released the lease together must not try again together.
    most = settings.free_seconds * random.uniform(1.0, 1.25)  # noqa: S311 - jitter
    while True:
        await asyncio.sleep(settings.look_seconds)
        if await settings.can_lead():
            log.debug("this server can do the work of a lease again", lease=name)
            return None
        await _see(store, name, sight)
        await settings.led_elsewhere(sight.is_held)
        if sight.free_for() >= most:
            # Another server may have tried and released the lease since that read: then this server waits again.
            lease = await _take(store, name, owner, seconds, sight, only_epoch=sight.epoch)
            if lease is not None:
                return lease


@asynccontextmanager
async def under_lease(store: Store, lease: Lease) -> AsyncIterator[Transaction]:
    """Opens a transaction that commits only while the lease is held. Raises LeaseLost."""
    async with store.system_write("observer") as transaction:
        if not await leases.hold(transaction, lease):
            raise LeaseLost
        yield transaction


async def _work(store: Store, lease: Lease, work: Work, seconds: float, taken: float) -> None:
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


async def _take(
    store: Store,
    name: str,
    owner: str,
    seconds: float,
    sight: _Sight | None = None,
    *,
    only_epoch: int | None = None,
) -> Lease | None:
    unrenewed = None if sight is None else sight.unrenewed
    seen = None
    try:
        # Leases are renewed or checked continually: each statement is its own transaction, and a waiting server writes
        # nothing.
        async with store.system_call() as connection:
            transaction = Transaction(connection)
            if sight is not None:
                seen = await leases.see(transaction, name)
            if seen is not None and unrenewed is None and seen.is_held_from(owner):
                lease = None
            else:
                lease = await leases.take(
                    transaction, name, owner, seconds, unrenewed=unrenewed, only_epoch=only_epoch
                )
    except PilothouseError as error:
        log.warning("lease cannot be taken", lease=name, reason=error.reason)
        return None
    if sight is not None:
        sight.note(seen if lease is None else None)
    if lease is not None and unrenewed is not None and unrenewed.ahead_seconds > 0:
        log.warning(
            "lease ends far in the future but was not renewed, so it counts as expired: check the database's clock",
            lease=name,
            ahead_seconds=round(unrenewed.ahead_seconds),
        )
    return lease


async def _see(store: Store, name: str, sight: _Sight) -> None:
    try:
        async with store.system_call() as connection:
            sight.note(await leases.see(ReadTransaction(connection), name))
    except PilothouseError as error:
        log.warning("lease cannot be read", lease=name, reason=error.reason)


async def _give_up(store: Store, lease: Lease) -> None:
    try:
        async with store.system_write("leases") as transaction:
            await leases.give_up(transaction, lease)
    except PilothouseError:
        log.warning("lease cannot be released, and expires by itself", lease=lease.name)
