"""Turns every failure into what the caller may hear; nothing else leaves this layer."""

from __future__ import annotations

import asyncio

import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.log_lines import without_values
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.pipeline import CallFailed, Proceed
from pilothouse_server.rpc.status import CODES, STATUS_KEY, internal_status, rich_status

log = structlog.get_logger(__name__)


async def errors(call: Call, proceed: Proceed) -> bytes:
    """An allow-list.

    Domain errors are reported with their details, all else is INTERNAL with the operation's id.
    """
    try:
        return await proceed()
    except PilothouseError as error:
        status = rich_status(error)
        raise CallFailed(
            CODES[error.code], error.message, ((STATUS_KEY, status.SerializeToString()),)
        ) from None
    except (asyncio.CancelledError, CallFailed):
        raise
    except Exception as error:
        # The text of an unforeseen exception may hold a parameter; its type and place may not.
        log.error(
            "call failed unexpectedly",
            method=call.method,
            operation_id=str(call.operation_id),
            error=type(error).__name__,
            exc_info=without_values(error),
        )
        message = f"internal error; operation {call.operation_id} in the server's log says more"
        raise CallFailed(
            CODES["INTERNAL"],
            message,
            ((STATUS_KEY, internal_status(message, str(call.operation_id)).SerializeToString()),),
        ) from None
