"""Roll-ups: whole hours from samples, whole days from hours.

`roll_up` runs every minute on one server at a time. It stores no progress of its own: the newest bucket shows how far
it came. Each bucket is rewritten as a whole in its own transaction, so the job can be interrupted at any point, and
repeating it changes nothing. An hour is rolled up two minutes after its end, when no batch that began within it can
still be open. Readers compute the current hour from samples.

If a sample belongs to an hour that is already rolled up, the transaction that stores the sample repairs the roll-ups
(`repair`). Under a lock that it shares with `roll_up`, it rewrites the hours of the sample and of the next samples,
whose increase is counted from it, and the days of these hours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from pilothouse_server.metrics.model import UsageSample
from pilothouse_server.metrics.repository import series
from pilothouse_server.metrics.repository.series import DAY, HOUR, Rolled
from pilothouse_server.store.unit_of_work import Store, Transaction

ROLL_UP_SECONDS: Final = 60.0
# A statement of the system role may take 30 s, and a transaction may wait 60 s before it is terminated.
SETTLING_SECONDS: Final = 120


async def roll_up(store: Store, now: datetime | None = None) -> int:
    """Rolls up every hour and day that has ended; returns the number of written buckets.

    `now` is for tests. By default it is the earlier of the database's and this server's clocks, because a clock that is
    ahead would roll up hours that have not ended. Raises Unavailable; buckets that were written stay.
    """
    if now is None:
        async with store.system_read() as transaction:
            now = min(await transaction.moment(), datetime.now(UTC))
    settled = int(now.timestamp()) - SETTLING_SECONDS
    return await _roll_up(store, "hour", settled - settled % HOUR) + await _roll_up(
        store, "day", settled - settled % DAY
    )


async def _roll_up(store: Store, rolled: Rolled, until: int) -> int:
    """Rolls up the buckets after the newest one that end by `until`, which must be the start of a bucket."""
    written = 0
    while True:
        async with store.system_write("roll-ups") as transaction:
            await series.lock_roll_ups(transaction)
            start = (await series.rolled_until(transaction))[rolled]
            bucket = await series.first_to_roll(transaction, rolled, start, until)
            if bucket is None:
                return written
            await series.roll(transaction, rolled, bucket)
        written += 1


def reaches_back(transaction: Transaction, samples: Iterable[UsageSample]) -> bool:
    """Returns whether one of the samples may belong to an hour that is rolled up already."""
    now = int(transaction.now.timestamp())
    return any(sample.timestamp.timestamp() < now - now % HOUR for sample in samples)


async def repair(transaction: Transaction, samples: Iterable[UsageSample]) -> None:
    """Rewrites the roll-ups of samples that were just stored. Take the lock before storing the samples."""
    until = await series.rolled_until(transaction)
    hours: defaultdict[int, set[int]] = defaultdict(set)
    for sample in samples:
        _add(hours, HOUR, until["hour"], sample.container_id, int(sample.timestamp.timestamp()))
    for hour, ids in sorted(hours.items()):
        for container_id, at in await series.following(transaction, sorted(ids), hour + HOUR):
            _add(hours, HOUR, until["hour"], container_id, at)
    days: defaultdict[int, set[int]] = defaultdict(set)
    for hour, ids in hours.items():
        await series.roll(transaction, "hour", hour, ids)
        for container_id in ids:
            _add(days, DAY, until["day"], container_id, hour)
    for day, ids in days.items():
        await series.roll(transaction, "day", day, ids)


def _add(
    buckets: defaultdict[int, set[int]], length: int, until: int | None, container_id: int, at: int
) -> None:
    """Adds the bucket of a time if the bucket is rolled up already."""
    if until is not None and at < until:
        buckets[at - at % length].add(container_id)
