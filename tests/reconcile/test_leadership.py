"""Leadership: any server that can do the work can lead, with any time of the database's clock, and can be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from structlog.testing import capture_logs

from pilothouse_server.reconcile.queue.leadership import CannotLead, StandingBack, lead
from pilothouse_server.reconcile.repository import leases
from pilothouse_server.reconcile.repository.leases import Lease, SeenLease
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.unit_of_work import Transaction
from tests.reconcile.environment import Environment
from tests.waiting import Stopwatch, within

NAME = "observe/local"

LEASE_SECONDS = 0.5
# Far longer than an orderly end takes: only a leader that never ends reaches it.
LIMIT_SECONDS = 20.0


class SlowToEnd:
    """Work that ends slowly once it is cancelled, for example because a transaction is rolled back."""

    def __init__(self) -> None:
        self.began, self.winding_up, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, lease: Lease) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.winding_up.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.ended.set()


async def test_a_leader_cancelled_while_it_winds_up_a_lost_lease_ends(here: Environment) -> None:
    work = SlowToEnd()
    leading = asyncio.create_task(lead(here.store, NAME, "this", work, seconds=LEASE_SECONDS))
    async with within(LIMIT_SECONDS):
        await work.began.wait()
        async with here.database.system() as sql:
            # Another server holds the lease from now on.
            await sql.execute(
                "UPDATE leases SET owner = 'other', epoch = epoch + 1,"
                " expires_at = clock_timestamp() + interval '1 hour'"
            )
        await work.winding_up.wait()
        leading.cancel()
        await asyncio.wait([leading])
    assert leading.cancelled()
    assert work.ended.is_set()


async def held_by(here: Environment, owner: str | None, ahead: str) -> None:
    """Writes the lease with this owner and an end that is `ahead` of now."""
    async with here.database.system() as sql:
        await sql.execute(
            "INSERT INTO leases (name, owner, epoch, expires_at)"
            f" VALUES ($1, $2, 7, clock_timestamp() + interval '{ahead}')",
            NAME,
            owner,
        )


async def leads(here: Environment, *, seconds: float = LEASE_SECONDS) -> Lease:
    """Returns the lease once this server has it."""
    taken: asyncio.Queue[Lease] = asyncio.Queue()

    async def work(lease: Lease) -> None:
        taken.put_nowait(lease)
        await asyncio.Event().wait()

    leading = asyncio.create_task(lead(here.store, NAME, "this", work, seconds=seconds))
    try:
        async with within(LIMIT_SECONDS):
            return await taken.get()
    finally:
        await cancel_and_wait(leading)


async def test_a_lease_without_an_owner_is_free_whatever_its_end(here: Environment) -> None:
    await held_by(here, None, "2 years")
    # A lease so long that no caller could wait for its end.
    assert (await leads(here, seconds=3600.0)).epoch == 8


async def test_a_lease_ending_in_two_years_counts_as_expired_with_a_warning(here: Environment) -> None:
    await held_by(here, "dead", "2 years")
    with capture_logs() as logs:
        assert (await leads(here)).epoch == 8
    (told,) = [line for line in logs if "counts as expired" in line["event"]]
    assert (told["log_level"], told["lease"]) == ("warning", NAME)
    assert told["ahead_seconds"] > 365 * 86400


async def test_a_lease_renewed_since_it_was_read_is_left_to_its_holder(here: Environment) -> None:
    await held_by(here, "alive", "2 years")

    async def see(transaction: Transaction) -> SeenLease | None:
        return await leases.see(transaction, NAME)

    async def take(owner: str, unrenewed: SeenLease | None = None) -> Lease | None:
        taken: Lease | None = await here.change(
            lambda tx: leases.take(tx, NAME, owner, 3600.0, unrenewed=unrenewed)
        )
        return taken

    before = await here.change(see)
    assert await take("alive") == Lease(NAME, "alive", 7)
    assert await take("this", before) is None
    assert await take("this", await here.change(see)) == Lease(NAME, "this", 8)


async def test_a_server_that_cannot_lead_lets_another_lead_until_it_can(here: Environment) -> None:
    able = asyncio.Event()
    left = asyncio.Event()
    held: dict[str, asyncio.Event] = {"unable": asyncio.Event(), "other": asyncio.Event()}

    async def unable(_lease: Lease) -> None:
        held["unable"].set()
        if not able.is_set():
            raise CannotLead("no kubeconfig")
        await asyncio.Event().wait()

    async def other(_lease: Lease) -> None:
        held["other"].set()
        await asyncio.Event().wait()

    async def can_lead() -> bool:
        return able.is_set()

    async def led(by_another: bool) -> None:
        if by_another:
            left.set()

    back = StandingBack(can_lead, led, look_seconds=0.02)
    with capture_logs() as logs:
        first = asyncio.create_task(
            lead(here.store, NAME, "unable", unable, seconds=LEASE_SECONDS, standing_back=back)
        )
        try:
            async with within(LIMIT_SECONDS):
                await held["unable"].wait()
                second = asyncio.create_task(lead(here.store, NAME, "other", other, seconds=LEASE_SECONDS))
                await held["other"].wait()
                await left.wait()
                held["unable"].clear()
                # The other server leaves; this one can do the work by now.
                able.set()
                await cancel_and_wait(second)
                await held["unable"].wait()
        finally:
            await cancel_and_wait(first, second)
    (told,) = [line for line in logs if "lease is released" in line["event"]]
    assert (told["lease"], told["why"]) == (NAME, "no kubeconfig")


async def test_a_lease_whose_work_no_server_can_do_changes_hands_slowly(here: Environment) -> None:
    taken: list[str] = []
    enough = asyncio.Event()

    def unable(owner: str) -> Callable[[Lease], Awaitable[None]]:
        async def work(_lease: Lease) -> None:
            taken.append(owner)
            if len(taken) == 5:
                enough.set()
            raise CannotLead("nobody reaches it")

        return work

    async def cannot() -> bool:
        return False

    back = StandingBack(cannot, look_seconds=0.02, free_seconds=0.5)
    watch = Stopwatch()
    leading = [
        asyncio.create_task(
            lead(here.store, NAME, owner, unable(owner), seconds=LEASE_SECONDS, standing_back=back)
        )
        for owner in ("one", "two", "three")
    ]
    try:
        async with within(LIMIT_SECONDS):
            await enough.wait()
    finally:
        await cancel_and_wait(*leading)
    # Each server tried once, one after another; later tries follow only after `free_seconds` without a holder.
    assert set(taken[:3]) == {"one", "two", "three"}
    assert watch.passed() >= 2 * 0.5
