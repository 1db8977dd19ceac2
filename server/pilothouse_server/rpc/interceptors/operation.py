"""Gives the call its identity.

The id under which log lines, the audit record and the caller can name it.
"""

from __future__ import annotations

import structlog

from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.pipeline import Proceed

OPERATION_KEY = "pilothouse-operation-id"


async def operation(call: Call, proceed: Proceed) -> bytes:
    """Binds the operation id to the log context and sends it back as trailing metadata."""
    call.trailing_metadata[OPERATION_KEY] = str(call.operation_id)
    with structlog.contextvars.bound_contextvars(operation_id=str(call.operation_id), method=call.method):
        return await proceed()
