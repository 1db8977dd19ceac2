"""The database facts for a refusal: ended grants, and users who could give the missing permission.

A look-up costs several times as much as a refused call, and callers can flood the server with refused calls. So the
facts for a caller and a question are cached for a while. In that time, each caller and all callers together have a
limited number of look-ups; few run concurrently, and few wait. A caller without a look-up gets a reason that is based
on the caller's own valid grants only, as when the database cannot be reached.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from pilothouse_server.authorization.access import Principal
from pilothouse_server.authorization.denials import DatabaseFacts, Question
from pilothouse_server.errors import PilothouseError
from pilothouse_server.identity.access.operations import explanations
from pilothouse_server.store.unit_of_work import Store

_AT_ONCE: Final = 2
_MOST_WAITING: Final = 32
_SECONDS: Final = 2.0
_KEPT_SECONDS: Final = 2.0
_MOST_KEPT: Final = 1000
# The maximum numbers of look-ups within `_KEPT_SECONDS`, of one user and of all users.
_MOST_OF_USER: Final = 10
_MOST_OF_ALL: Final = 100
_NOTHING: Final = DatabaseFacts()

_Key = tuple[int, str, Question]


class RefusalReasons:
    """Reads the facts about a refusal that the caller may see."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._kept: OrderedDict[_Key, tuple[float, DatabaseFacts]] = OrderedDict()
        # The number of look-ups in the present period, by user.
        self._looks: Counter[int] = Counter()
        self._counted_until = 0.0

    async def database_facts(self, principal: Principal, question: Question) -> DatabaseFacts:
        """Returns the database facts; empty ones if they cannot be looked up now."""
        key = (principal.user_id, principal.credential.id, question)
        until, kept = self._kept.get(key, (0.0, _NOTHING))
        if until > self._clock():
            return kept
        if self._waiting >= _MOST_WAITING or not self._may_look(principal.user_id):
            return _NOTHING
        self._waiting += 1
        try:
            async with (
                asyncio.timeout(_SECONDS),
                self._turns,
                self._store.read(principal.user_id) as transaction,
            ):
                found = await explanations.database_facts(transaction, principal, question)
        except (PilothouseError, TimeoutError):
            return _NOTHING
        finally:
            self._waiting -= 1
        self._keep(key, found)
        return found

    def _may_look(self, user_id: int) -> bool:
        """Counts a look-up of the user; returns False, and counts nothing, if the limit is reached."""
        now = self._clock()
        if now >= self._counted_until:
            self._looks.clear()
            self._counted_until = now + _KEPT_SECONDS
        if self._looks[user_id] >= _MOST_OF_USER or self._looks.total() >= _MOST_OF_ALL:
            return False
        self._looks[user_id] += 1
        return True

    def _keep(self, key: _Key, found: DatabaseFacts) -> None:
        self._kept[key] = (self._clock() + _KEPT_SECONDS, found)
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
