"""A change that is written by one statement, with its audit record.

Its transaction is one round trip.

A unit of work holds a connection from its first statement to its commit, over many round trips. A draft holds
no connection: single statements first read the facts for the decision. The whole change, with its record, its
event and the row for replays, is sent at the commit to one function of the database. That function takes the
locks, and ends with `put_changes`; so, as in a unit of work, nothing is written without its record. If the facts
have changed since they were read, it refuses with a serialization failure (Aborted here), and the caller begins
again with a new draft.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Executable

from pilothouse_server.errors import Aborted
from pilothouse_server.runtime.tasks import uncancelled
from pilothouse_server.store import append
from pilothouse_server.store.append import Idempotency, Operation
from pilothouse_server.store.audit_records import AuditRecord
from pilothouse_server.store.unit_of_work import Actor, Event, Store, described


class Draft:
    """One change of one caller.

    `request_id` is the caller's id of its request, or None.
    """

    def __init__(
        self,
        store: Store,
        actor: Actor,
        operation_id: UUID,
        method: str,
        request_id: UUID | None,
    ) -> None:
        assert actor.user_id is not None, "a draft is written in the name of a caller"
        self.actor = actor
        self.user_id: int = actor.user_id
        self.operation_id = operation_id
        self.method = method
        self.request_id = request_id
        self.committed = False
        # Whether its commit leaves rows for another short transaction of this server.
        self.follow_up = False
        self._store = store
        self._events: list[Event] = []
        self._turn: Hashable | None = None
        self._statement: Executable | None = None
        self._parameters: Mapping[str, Any] = {}
        self._alone: Hashable | None = None
        self._written: Callable[[Sequence[Any]], None] = _nothing
        self._outdated: Callable[[], None] = _nothing

    @property
    def writes(self) -> bool:
        """Whether there is a change to send.

        If not, the record needs a transaction of its own.
        """
        return self._statement is not None

    async def take_turn(self, key: Hashable) -> None:
        """Waits until no other draft of this process has the turn of this key.

        The turn ends with the draft. When several callers change the same row, the second one thus reads the row that
        the first one has written. A change by another process instead makes the draft outdated.
        """
        await self._store.drafts.acquire(key)
        self._turn = key

    async def read(self, statement: Executable, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Returns the rows of one statement, run in its own transaction.

        It gets `user_id` as one more parameter.
        """
        return await self._store.call(self.user_id, statement, parameters)

    def emit(self, event: Event) -> None:
        """Adds an event of the change."""
        self._events.append(event)

    def write(
        self,
        statement: Executable,
        parameters: Mapping[str, Any],
        *,
        alone: Hashable | None = None,
        written: Callable[[Sequence[Any]], None] | None = None,
        outdated: Callable[[], None] | None = None,
    ) -> None:
        """Sets the statement that writes the change at the commit.

        It also gets the parameters of `append.parameters`. Statements of one process with the same `alone` are sent one
        after another, because they would wait for the same lock. `written` is called with the statement's rows after
        the commit; `outdated` is called if the statement refuses because the facts have changed.
        """
        self._statement, self._parameters, self._alone = statement, parameters, alone
        self._written, self._outdated = written or _nothing, outdated or _nothing

    async def commit(
        self,
        *,
        audit: Sequence[AuditRecord] = (),
        operation: Operation | None = None,
        idempotency: Idempotency | None = None,
    ) -> None:
        """Sends the change.

        Raises:
            Aborted: the facts have changed since they were read; nothing was written. Begin again.
            Unavailable: the connection was lost; nothing was written, unless it was lost during the commit itself.
        """
        assert self._statement is not None, "a draft needs a statement that writes it"
        events, messages = described(self._events, self._store.renderers, self.operation_id)
        parameters = {
            **self._parameters,
            **append.parameters(
                list(map(append.audit_row, audit)),
                events,
                messages,
                operation,
                idempotency,
                self.operation_id,
            ),
        }
        try:
            async with self._together():
                await uncancelled(self._send(self._statement, parameters))
        finally:
            self.close()
        self._store.committed(self.follow_up)

    async def rollback(self) -> None:
        """Ends the draft without its change; nothing was written yet."""
        self.close()

    def close(self) -> None:
        """Ends the draft's turn; may be called again."""
        if self._turn is not None:
            key, self._turn = self._turn, None
            self._store.drafts.release(key)

    async def _send(self, statement: Executable, parameters: Mapping[str, Any]) -> None:
        try:
            rows = await self._store.call(self.user_id, statement, parameters)
        except Aborted:
            self._outdated()
            raise
        self.committed = True
        self._written(rows)

    @asynccontextmanager
    async def _together(self) -> AsyncIterator[None]:
        if self._alone is None:
            yield
            return
        async with self._store.drafts.seat(self._alone):
            yield


def _nothing(*_: object) -> None:
    return None
