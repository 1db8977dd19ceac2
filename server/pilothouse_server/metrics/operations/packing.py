"""Packs days of usage: the points of a container's day are rendered once, into one row.

The job runs after the roll-ups, every minute, on one server at a time, for days that have been rolled up. The database
lists unpacked days, so the job stores no progress of its own, can be interrupted at any point, and packs a day again if
a sample for it came late. Days that are not packed yet are read from the hourly roll-ups. A run ends after a maximum
number of days, so that the first run after an upgrade does not process the whole past.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pilothouse_server.metrics.model import Point
from pilothouse_server.metrics.operations.roll_ups import roll_up
from pilothouse_server.metrics.repository import days, series
from pilothouse_server.metrics.repository.series import DAY, HOUR
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store.unit_of_work import Store

_DAYS_AT_ONCE: Final = 500
_DAYS_A_RUN: Final = 50_000


@dataclass(frozen=True, slots=True)
class Rendering:
    """Renders the points of one container as bytes.

    `form`: the version of the rendering; rows of another version are not read.
    """

    form: int
    render: Callable[[Sequence[Point]], bytes]


async def roll_up_and_pack(store: Store, rendering: Rendering) -> None:
    """Rolls up periods that have ended and packs past days. Raises Unavailable; rows that were written stay."""
    await roll_up(store)
    await pack_days(store, rendering)


async def pack_days(store: Store, rendering: Rendering) -> int:
    """Stores each rolled-up past day of a container as one rendered row.

    Returns the number of days stored. Raises Unavailable; days that were stored before stay.
    """
    packed = 0
    while packed < _DAYS_A_RUN:
        async with store.system_write("usage days") as transaction:
            until = (await series.rolled_until(transaction))["day"]
            found = await days.unpacked_days(transaction, rendering.form, until or 0, _DAYS_AT_ONCE)
            if not found:
                break
            written = {}
            async for key, points in cooperatively(found.items()):
                written[key] = _hours_of(points), rendering.render(points)
            await days.pack(transaction, rendering.form, written)
        packed += len(found)
    return packed


def _hours_of(points: Sequence[Point]) -> int:
    """Returns a number with a bit for the hour of each point; the lowest bit is the first hour of the day."""
    return sum(1 << (point.at % DAY // HOUR) for point in points)
