"""A mutation with a `request_id` happens once: a replay is answered with the first answer, less its secret
fields.

Only a caller who may still make the call is answered: this is the innermost layer, after authorization.

That it happens once is decided by the database: the answer's row has (user, request_id) as its primary key
and is written with the change. A caller that comes while the first call is still being served waits, and
holds nothing: first in a fair queue of this process, then, if another process serves it, by polling, each
time with a connection for one statement. A call that works in one transaction is recognised by its advisory
lock. A call that waits for a cluster before it writes (`waits_outside`) is recognised by a row with its
operation and its deadline, after which the replay is executed. A wait that would outlast the caller's own
deadline ends as ABORTED with a time to try again.

The stored row holds an HMAC of the request (without its id), so that another body under the same id is refused
without keeping the body, which may hold a secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from dataclasses import dataclass
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
from pilothouse_server.store.idempotency_keys import (
    BeingServed,
    Look,
    Replayed,
    StoredAnswer,
    being_served,
)

# How long a replay waits for the first answer at most, and the part of its own time that it may use for that.
_LONGEST_WAIT_SECONDS: Final = 30.0
_PART_OF_DEADLINE: Final = 0.9
# For how long a call without a deadline claims its id.
_CLAIM_SECONDS: Final = 60.0
# One call at a time for each user and `request_id`; a thousand may wait in all.
_BOUNDS: Final = QueueBounds(1_000_000, 1, 1_000, 1_000, _LONGEST_WAIT_SECONDS)
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.02, 0.5


@dataclass(slots=True)
class _Serving:
    """A call that has its turn to serve an id in this process; where it `claimed` it by a row, in all processes."""

    key: tuple[int, UUID]
    claimed: bool = False


class IdempotencyKeeper:
    """Returns replays and makes the rows that answer them.

    `key` is the server's, the same on every replica.
    """

    def __init__(self, key: bytes, *, retention: timedelta = timedelta(hours=24)) -> None:
        self._key = key
        self._retention = retention
        self._queue = FairQueue("replays", _BOUNDS, refusal=lambda _of_caller: being_served())
        self._serving: dict[UUID, _Serving] = {}

    async def answer(self, inner: Runner, call: Call) -> bytes:
        """Returns the stored answer of a replay, else the handler's answer.

        Raises:
            Aborted: the request is still being served; with a time after which to try again.
        """
        request_id = call.happens_once_by
        if request_id is None:
            return await inner(call)
        loop = asyncio.get_running_loop()
        until = loop.time() + _patience(call)
        pause = _FIRST_PAUSE_SECONDS
        while True:
            await self._wait_for_turn(call, (call.user_id, request_id), until)
            try:
                if not call.rule.drafts:
                    idempotency_keys.settle(await self._look(call, request_id))
                return await inner(call)
            except Replayed as found:
                if call.rule.drafts:
                    await call.leave_transaction()
                return self._replay(call, found.answer)
            except BeingServed:
                # By another process.
                await call.leave_transaction()
            if loop.time() + pause > until:
                raise being_served()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _replay(self, call: Call, stored: StoredAnswer) -> bytes:
        if stored.method != call.method or not hmac.compare_digest(stored.request_hmac, self._digest(call)):
            description = "was used for another request"
            raise InvalidArgument(
                f"request_id: {description}",
                reason="REQUEST_ID_REUSED",
                violations=(Violation("request_id", "request_id_reused", description),),
            )
        call.describe(replayed=True)
        return stored.response

    def row(self, call: Call, answer: bytes) -> Idempotency | None:
        """The row that answers a replay of this call; None where there is none to keep."""
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
            request_hmac=self._digest(call),
            response=answer,
            expires_at=call.started_at + self._retention,
        )

    async def end(self, call: Call) -> None:
        """Lets the next call with this id continue; called when all is committed or undone."""
        serving = self._serving.pop(call.operation_id, None)
        if serving is None:
            return
        answered = call.unit is not None and call.unit.committed
        try:
            if serving.claimed and not answered:
                await uncancelled(self._release(call, serving.key[1]))
        finally:
            if answered:
                # All that wait read the same answer: they need not do so one after the other.
                self._queue.admit_waiting(serving.key)
            self._queue.release(serving.key)

    async def _wait_for_turn(self, call: Call, key: tuple[int, UUID], until: float) -> None:
        if call.operation_id not in self._serving:
            await self._queue.acquire(key, until=until)
            self._serving[call.operation_id] = _Serving(key)

    async def _look(self, call: Call, request_id: UUID) -> Look:
        if not call.rule.waits_outside:
            return await idempotency_keys.look(await call.replay_transaction(), call.user_id, request_id)
        remaining = call.time_remaining()
        unit = call.store.unit_of_work(call.actor, call.operation_id, call.method)
        seconds = _CLAIM_SECONDS if remaining is None else min(remaining, LONGEST_CLAIM_SECONDS)
        look = await idempotency_keys.claim(unit, call.user_id, request_id, call.operation_id, seconds)
        if call.operation_id in self._serving:
            self._serving[call.operation_id].claimed = look.ours
        return look

    async def _release(self, call: Call, request_id: UUID) -> None:
        unit = call.store.unit_of_work(call.actor, call.operation_id, call.method)
        # It ends by itself.
        with contextlib.suppress(Unavailable):
            await idempotency_keys.release(unit, call.user_id, request_id, call.operation_id)

    def _digest(self, call: Call) -> bytes:
        # It is restored immediately, because a copy of the message would cost more than all else here.
        request: Any = call.request
        request_id, request.request_id = request.request_id, ""
        body = call.method.encode() + b"\0" + request.SerializeToString(deterministic=True)
        request.request_id = request_id
        return hmac.new(self._key, body, hashlib.sha256).digest()


def _patience(call: Call) -> float:
    """The seconds that a replay may wait: it is refused before its caller's time is over."""
    remaining = call.time_remaining()
    if remaining is None:
        return _LONGEST_WAIT_SECONDS
    return min(_LONGEST_WAIT_SECONDS, _PART_OF_DEADLINE * remaining)
