"""Translates every failure into an error that the caller may see (`outer`).

No other error leaves this layer. It has an allow-list: domain errors are reported with their details, all other errors
are INTERNAL with the operation's id.
"""

from __future__ import annotations

import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.pipeline import CallFailed
from pilothouse_server.rpc.status import CODES, STATUS_KEY, internal_status, rich_status
from pilothouse_server.runtime.log_lines import without_values

log = structlog.get_logger(__name__)


def told(error: PilothouseError) -> CallFailed:
    """Returns the end of a call that failed with a domain error."""
    status = rich_status(error).SerializeToString()
    return CallFailed(CODES[error.code], error.message, ((STATUS_KEY, status),))


def unheard(error: PilothouseError) -> CallFailed:
    """Returns the same without details, which nobody reads, because the client is gone.

    The details cost more than the rest of a refusal.
    """
    return CallFailed(CODES[error.code], error.message, ())


def unforeseen(call: Call, error: Exception) -> CallFailed:
    """Logs an unexpected exception, and returns the end of its call."""
    # The text of the exception may contain a parameter; its type and place cannot.
    log.error(
        "call failed unexpectedly",
        method=call.method,
        operation_id=call.operation,
        error=type(error).__name__,
        exc_info=without_values(error),
    )
    message = f"internal error; see operation {call.operation} in the server's log"
    status = internal_status(message, call.operation).SerializeToString()
    return CallFailed(CODES["INTERNAL"], message, ((STATUS_KEY, status),))
