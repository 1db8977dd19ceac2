"""Gives the call its identity.

The id under which log lines, the audit record and the caller can name it. Each log line of the call says it, with the
method and who calls: they are put together when there is a line, which most calls never have.
"""

from __future__ import annotations

from pilothouse_server.log_lines import SCOPE
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.pipeline import Proceed

OPERATION_KEY = "pilothouse-operation-id"


async def operation(call: Call, proceed: Proceed) -> bytes:
    """Sends the operation id back as trailing metadata, and has it in the call's log lines."""
    call.trailing_metadata[OPERATION_KEY] = str(call.operation_id)
    token = SCOPE.set(call.log_fields)
    try:
        return await proceed()
    finally:
        SCOPE.reset(token)
