"""The overview and the search: their reads, and the cached results.

An overview is computed once for all callers with the same access. It is cached for a second, and for ten seconds while
no event arrives, so its cost does not grow with the number of pages that show it. The counts of 10⁵ containers are read
from an index in 23 ms. With 25,000 of them failed, a whole overview took 0.4 s, most of it for the list of the worst,
and 2 ms while it was cached. A search of 10⁵ containers took 0.3 s. Curves of usage read roll-ups, which change once an
hour, and are cached for a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Generic, TypeVar

from pilothouse_server.authorization.access import Principal
from pilothouse_server.dashboard import repository
from pilothouse_server.dashboard.model import DAY, HOUR, Overview, OverviewQuestion, Sights, UsagePoint
from pilothouse_server.errors import missing
from pilothouse_server.namespaces.model import Quota
from pilothouse_server.store.unit_of_work import ReadTransaction

T = TypeVar("T")
OVERVIEW_SECONDS = 1.0
_USAGE_SECONDS = 60.0
_MOST_KEPT = 64
_NOTHING = Quota(0, "0", "0")
_HOURLY_WINDOW = timedelta(days=7)
# The permission to list a noun, by the noun's word. Usage is not a noun, and has a permission of its own.
PERMISSIONS = {
    "namespace": "namespace.list",
    "application": "application.list",
    "container": "container.list",
    "service": "service.list",
    "object": "object.list",
    "volume": "storage.list",
    "config": "config.list",
}
USAGE_PERMISSION = "metrics.query"

list_namespaces = repository.namespaces
search = repository.search


def sights_of(caller: Principal) -> dict[str, frozenset[int] | None]:
    """Returns the namespaces in which the caller may list each noun, and see usage; a noun without any is left out."""
    wanted = {**PERMISSIONS, "usage": USAGE_PERMISSION}
    found = {word: caller.namespaces_with(permission) for word, permission in wanted.items()}
    return {word: sight for word, sight in found.items() if sight is None or sight}


def words_of(query: str) -> list[str]:
    """Returns the words of a search.

    Raises:
        InvalidArgument: there are none.
    """
    words = query.split()
    if not words:
        raise missing("query")
    return words


class KeptResults(Generic[T]):
    """Cached results by question, the newest `_MOST_KEPT` of them; one call at a time computes each."""

    def __init__(self) -> None:
        self._results: dict[Hashable, tuple[float, int, T]] = {}
        self._computing: dict[Hashable, asyncio.Lock] = {}

    async def get(
        self,
        question: Hashable,
        seconds: float,
        revision: Callable[[], int],
        compute: Callable[[], Awaitable[T]],
    ) -> T:
        """Returns the cached result while it is valid: for `seconds`, or ten times as long without an event."""
        if (found := self._fresh(question, seconds, revision())) is not None:
            return found[2]
        lock = self._computing.setdefault(question, asyncio.Lock())
        try:
            async with lock:
                if (found := self._fresh(question, seconds, revision())) is not None:
                    return found[2]
                began, before = asyncio.get_running_loop().time(), revision()
                result = await compute()
                self._results.pop(question, None)
                while len(self._results) >= _MOST_KEPT:
                    self._results.pop(next(iter(self._results)))
                self._results[question] = began, before, result
                return result
        finally:
            if not lock.locked():
                self._computing.pop(question, None)

    def _fresh(self, question: Hashable, seconds: float, revision: int) -> tuple[float, int, T] | None:
        found = self._results.get(question)
        if found is None:
            return None
        age = asyncio.get_running_loop().time() - found[0]
        # Times and grants expire without an event, so no result is cached for long.
        unchanged = found[1] == revision and age <= 10 * seconds
        return found if unchanged or age <= seconds else None


Read = Callable[[], AbstractAsyncContextManager[ReadTransaction]]


class Overviews:
    """The overviews of this server. `revision` returns the revision of the newest event that this server has."""

    def __init__(self, revision: Callable[[], int]) -> None:
        self._revision = revision
        self._kept: KeptResults[Overview] = KeptResults()
        self._curves: KeptResults[list[UsagePoint]] = KeptResults()

    async def overview(self, read: Read, sights: Sights, question: OverviewQuestion) -> Overview:
        """Returns the numbers; `read` opens a read as the caller."""
        key = (tuple(sorted(sights.items(), key=lambda each: each[0])), question)
        usage: list[UsagePoint] = []
        if question.usage_points and "usage" in sights:
            usage = await self._curves.get(
                key, _USAGE_SECONDS, lambda: 0, lambda: _usage(read, sights, question)
            )

        async def compute() -> Overview:
            async with read() as transaction:
                return await _overview(transaction, sights, question, usage)

        return await self._kept.get(key, OVERVIEW_SECONDS, self._revision, compute)


async def _overview(
    transaction: ReadTransaction, sights: Sights, question: OverviewQuestion, usage: list[UsagePoint]
) -> Overview:
    where = question.namespace_id
    seen = [
        each
        for each in await repository.namespaces(transaction)
        if (where is None or each.id == where)
        and any(sight is None or each.id in sight for sight in sights.values())
    ]
    wrong = await repository.count_wrong(transaction, sights, where)
    # Namespaces with the most resources that need attention come first.
    seen.sort(key=lambda each: (-wrong.get(each.id, 0), each.name))
    listed = sights.get("namespace", frozenset())
    shown = [each.id for each in seen[: question.most_namespaces] if listed is None or each.id in listed]
    counted = await repository.used(transaction, shown)
    return Overview(
        time=await transaction.moment(),
        namespaces=seen,
        counts=await repository.count(transaction, sights, where),
        wrong=wrong,
        worst=await repository.worst(transaction, sights, where, question.most_wrong),
        used={each: counted.get(each, _NOTHING) for each in shown},
        usage=usage,
    )


async def _usage(read: Read, sights: Sights, question: OverviewQuestion) -> list[UsagePoint]:
    bucket = HOUR if question.usage_window <= _HOURLY_WINDOW else DAY
    window = int(question.usage_window.total_seconds())
    step = max(1, -(-window // (question.usage_points * bucket))) * bucket
    async with read() as transaction:
        now = int((await transaction.moment()).timestamp())
        since = (now - window) // step * step
        return await repository.usage(transaction, sights, question.namespace_id, since, step, bucket)
