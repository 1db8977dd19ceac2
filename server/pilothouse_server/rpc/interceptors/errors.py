"""Turns every failure into an error that the caller may see; nothing else leaves this layer (`outer`).

An allow-list: domain errors are reported with their details, all else is INTERNAL with the operation's id.
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
    """Returns how a call ends by a domain error."""
    status = rich_status(error).SerializeToString()
    return CallFailed(CODES[error.code], error.message, ((STATUS_KEY, status),))


def unheard(error: PilothouseError) -> CallFailed:
    """The same of a call whose client is gone: nobody reads the details, which cost more than all else of a refusal."""
    return CallFailed(CODES[error.code], error.message, ())


def unforeseen(call: Call, error: Exception) -> CallFailed:
    """Logs a failure of the program, and returns how its call ends."""
    # The text of an unforeseen exception may hold a parameter; its type and place may not.
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
