"""A mutation with a `request_id` happens once: a replay gets the first response.

The response of a replay lacks its secret fields. Only a caller who may still make the call gets it, because this is the
innermost layer, after authorization.

The database ensures that the mutation happens once: the response's row has (user, request_id) as its primary key
and is written with the change. A call that arrives while the first one is still being served waits without a
connection: first in a fair queue of this process, then, if another process serves the first call, by polling, each
time with a connection for one statement. A first call that works in one transaction is recognised by its advisory
lock. One that waits for a cluster before it writes (`waits_outside`) is recognised by a row with its
operation and its deadline; after the deadline the replay is executed. A wait that would outlast the caller's own
deadline ends as ABORTED with a retry delay.

The stored row contains an HMAC of the request (without its id). So a different request with the same id is refused,
although the request itself, which may contain a secret, is not stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from pilothouse_server.errors import InvalidArgument, Unavailable, Violation
from pilothouse_server.flowcontrol.fair_queue import FairQueue, QueueBounds
from pilothouse_server.rpc import redaction
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.pipeline import Runner
from pilothouse_server.runtime.tasks import uncancelled
from pilothouse_server.store import idempotency_keys
from pilothouse_server.store.append import Idempotency
from pilothouse_server.store.clock_skew import LONGEST_CLAIM_SECONDS
from pilothouse_server.store.idempotency_keys import BeingServed, Replayed, StoredAnswer, being_served
from pilothouse_server.store.unit_of_work import ReadTransaction, UnitOfWork

# The longest wait of a replay for the first response, and the part of its remaining time that it may use for that.
_LONGEST_WAIT_SECONDS: Final = 30.0
_PART_OF_DEADLINE: Final = 0.9
# How long a call without a deadline claims its id.
_CLAIM_SECONDS: Final = 60.0
# One call at a time for each user and `request_id`; a thousand may wait in all.
_BOUNDS: Final = QueueBounds(1_000_000, 1, 1_000, 1_000, _LONGEST_WAIT_SECONDS)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.02, 0.5


class RequestClaim:
    """The right of one call to serve its `request_id`, from its first check for a stored response to its end.

    A call that works in one transaction checks as the transaction begins, and holds an advisory lock until it ends. A
    draft checks in the statement that reads its facts. A call that `waits_outside` checks before its handler runs, and
    claims the id by a row. Within this process, calls with one id take turns.
    """

    __slots__ = ("_call", "_keeper", "_recorded", "_replayed", "_turn", "request_id")

    def __init__(self, keeper: IdempotencyKeeper, call: Call, request_id: UUID) -> None:
        self.request_id = request_id
        self._keeper = keeper
        self._call = call
        # Whether this call has its turn in the process; whether a row claims the id.
        self._turn = False
        self._recorded = False
        self._replayed = False

    async def take_turn(self, until: float) -> None:
        """Waits for the call's turn in this process, if it has none yet; then claims the id by a row if required.

        Raises:
            Replayed, BeingServed: this call must not serve the request.
        """
        call = self._call
        if not self._turn:
            await self._keeper.queue.acquire(self._key, until=until)
            self._turn = True
        if call.rule.waits_outside:
            remaining = call.time_remaining()
            seconds = _CLAIM_SECONDS if remaining is None else min(remaining, LONGEST_CLAIM_SECONDS)
            look = await idempotency_keys.claim(
                self._unit(), call.user_id, self.request_id, call.operation_id, seconds
            )
            self._recorded = look.ours
            idempotency_keys.settle(look)

    async def begin(self, transaction: ReadTransaction) -> None:
        """Checks for a stored response, and takes the lock of the id, as the transaction of the call begins.

        Raises:
            Replayed, BeingServed: this call must not serve the request.
        """
        if not (self._replayed or self._call.rule.waits_outside):
            look = await idempotency_keys.look(transaction, self._call.user_id, self.request_id)
            idempotency_keys.settle(look)

    def replay(self, stored: StoredAnswer) -> bytes:
        """Returns the stored response.

        Raises:
            InvalidArgument: the id was used for another request.
        """
        call = self._call
        if stored.method != call.method or not hmac.compare_digest(
            stored.request_hmac, self._keeper.digest(call)
        ):
            description = "was already used for another request; use a new UUID"
            raise InvalidArgument(
                f"request_id: {description}",
                reason="REQUEST_ID_REUSED",
                violations=(Violation("request_id", "request_id_reused", description),),
            )
        self._replayed = True
        call.describe(replayed=True)
        return stored.response

    async def finish(self) -> None:
        """Lets the next call with this id continue; called when all is committed or undone."""
        if not self._turn:
            return
        self._turn = False
        call, queue = self._call, self._keeper.queue
        committed = call.unit is not None and call.unit.committed
        try:
            if self._recorded and not committed:
                await uncancelled(self._release())
        finally:
            if committed:
                # All waiting calls read the same response, so they need not do so one after the other.
                queue.admit_waiting(self._key)
            queue.release(self._key)

    @property
    def _key(self) -> tuple[int, UUID]:
        return (self._call.user_id, self.request_id)

    def _unit(self) -> UnitOfWork:
        call = self._call
        return call.store.unit_of_work(call.actor, call.operation_id, call.method)

    async def _release(self) -> None:
        # A claim that is not released expires at its deadline.
        with contextlib.suppress(Unavailable):
            await idempotency_keys.release(
                self._unit(), self._call.user_id, self.request_id, self._call.operation_id
            )


class IdempotencyKeeper:
    """Returns stored responses for replays, and makes the rows that store them.

    `key` is the server's, the same on every replica.
    """

    def __init__(self, key: bytes, *, retention: timedelta = timedelta(hours=24)) -> None:
        self.queue = FairQueue("replays", _BOUNDS, refusal=lambda _of_caller: being_served())
        self._key = key
        self._retention = retention

    async def answer(self, inner: Runner, call: Call) -> bytes:
        """Returns the stored response of a replay, otherwise the handler's.

        Raises:
            Aborted: the request is still being served; with a retry delay.
        """
        request_id = call.happens_once_by
        if request_id is None:
            return await inner(call)
        # A handler that begins again already has its claim.
        claim = call.claim if isinstance(call.claim, RequestClaim) else RequestClaim(self, call, request_id)
        call.claim = claim
        loop = asyncio.get_running_loop()
        until = loop.time() + _patience(call)
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                await claim.take_turn(until)
                answer = await inner(call)
                # A handler that wrote nothing has not checked for a stored response.
                await call.transaction_if_none()
                return answer
            except Replayed as found:
                await call.leave_transaction()
                return claim.replay(found.answer)
            except BeingServed:
                # Another process serves it.
                await call.leave_transaction()
            if loop.time() + pause > until:
                raise being_served()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def row(self, call: Call, answer: bytes) -> Idempotency | None:
        """Returns the row that stores the response for replays; None if there is nothing to store."""
        request_id = call.happens_once_by
        if request_id is None or call.facts.metadata.get("replayed"):
            return None
        response = call.answer_message(answer)
        if redaction.holds_secrets(response):
            answer = redaction.strip_secrets(response).SerializeToString()
        return Idempotency(
            user_id=call.user_id,
            request_id=request_id,
            method=call.method,
            request_hmac=self.digest(call),
            response=answer,
            expires_at=call.started_at + self._retention,
        )

    def digest(self, call: Call) -> bytes:
        """Returns the HMAC of a request without its id."""
        # The id is restored immediately: a copy of the message would cost more than everything else here.
        request: Any = call.request
        request_id, request.request_id = request.request_id, ""
        body = call.method.encode() + b"\0" + request.SerializeToString(deterministic=True)
        request.request_id = request_id
        return hmac.new(self._key, body, hashlib.sha256).digest()


def _patience(call: Call) -> float:
    """Returns the seconds that a replay may wait.

    It is refused before its caller's deadline.
    """
    remaining = call.time_remaining()
    if remaining is None:
        return _LONGEST_WAIT_SECONDS
    return min(_LONGEST_WAIT_SECONDS, _PART_OF_DEADLINE * remaining)
