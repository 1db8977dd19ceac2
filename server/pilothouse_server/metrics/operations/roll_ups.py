"""Roll-ups kept true: whole hours from samples, whole days from hours.

`roll_up` runs every minute on one server at a time and needs no memory: the newest bucket says how far it came.
Each bucket is a transaction of its own, written anew as a whole, so it may be cut off anywhere and doing it twice
changes nothing. An hour is rolled up two minutes after its end, when no batch that began within it can still be
open; the hour that runs is read from samples by whoever asks.

A sample that comes later than that, for an hour that is rolled up, is the business of the transaction that stores
it (`repair`): under a lock that it shares with `roll_up`, the hours that it touches are written anew, as are those
of the next samples, whose increase is counted from it, and the days they lie in.
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
# A statement of the system role may take half a minute, and a transaction wait a minute before it is ended.
SETTLING_SECONDS: Final = 120


async def roll_up(store: Store, now: datetime | None = None) -> int:
    """Rolls up every hour and day that has ended; answers how many buckets were written.

    `now` is the time to take for now (tests), else the earlier one by the clocks of the database and of this server:
    by one that is ahead, hours would be rolled up that have not ended. Raises Unavailable; what was written until then
    stays.
    """
    if now is None:
        async with store.system_read() as transaction:
            now = min(await transaction.moment(), datetime.now(UTC))
    settled = int(now.timestamp()) - SETTLING_SECONDS
    return await _roll_up(store, "hour", settled - settled % HOUR) + await _roll_up(
        store, "day", settled - settled % DAY
    )


async def _roll_up(store: Store, rolled: Rolled, until: int) -> int:
    """Rolls up what follows on the newest bucket and ends by `until`, which is the start of a bucket."""
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
    """Whether one of the samples may belong to an hour that is rolled up already."""
    now = int(transaction.now.timestamp())
    return any(sample.timestamp.timestamp() < now - now % HOUR for sample in samples)


async def repair(transaction: Transaction, samples: Iterable[UsageSample]) -> None:
    """Writes the roll-ups anew that the samples, just stored, belong to. The lock must be held since before
    they were.
    """
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
    """Adds the bucket of a moment if it is rolled up already."""
    if until is not None and at < until:
        buckets[at - at % length].add(container_id)
