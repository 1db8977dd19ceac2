"""A mutation with a `request_id` happens once: a replay is answered with the first answer, less its secret
fields.

Only a caller who may still make the call is answered: this is the innermost layer, after authorization.

The transaction first takes an advisory lock on (user, request_id), so of two that run at once the second
waits and then finds the first's row. The row holds an HMAC of the request (without its id), so that another
body under the same id is refused without keeping the body, which may hold a secret.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta
from typing import Any

from pilothouse_server.errors import InvalidArgument, Violation
from pilothouse_server.rpc import redaction
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.pipeline import Proceed
from pilothouse_server.store import idempotency_keys
from pilothouse_server.store.append import Idempotency


class IdempotencyKeeper:
    """Returns replays and makes the rows that answer them.

    `key` is the server's, the same on every replica.
    """

    def __init__(self, key: bytes, *, retention: timedelta = timedelta(hours=24)) -> None:
        self._key = key
        self._retention = retention

    async def answer(self, call: Call, proceed: Proceed) -> bytes:
        """The stored answer of a replay, else what the handler answers."""
        request_id = None if call.principal is None or call.validate_only else call.request_id
        if request_id is None:
            return await proceed()
        transaction = await call.replay_transaction()
        stored = await idempotency_keys.find(transaction, call.user_id, request_id)
        if stored is None:
            return await proceed()
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
        request_id = None if call.principal is None or call.validate_only else call.request_id
        if request_id is None or call.facts.metadata.get("replayed"):
            return None
        response = redaction.strip_secrets(call.rule.response_class.FromString(answer))
        return Idempotency(
            user_id=call.user_id,
            request_id=request_id,
            method=call.method,
            request_hmac=self._digest(call),
            response=response.SerializeToString(),
            expires_at=call.started_at + self._retention,
        )

    def _digest(self, call: Call) -> bytes:
        request: Any = call.rule.request_class()
        request.CopyFrom(call.request)
        request.request_id = ""
        body = call.method.encode() + b"\0" + request.SerializeToString(deterministic=True)
        return hmac.new(self._key, body, hashlib.sha256).digest()
