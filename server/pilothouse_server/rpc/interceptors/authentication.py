"""Who calls. The token was checked before the body was read (see `rpc.pipeline`); here its outcome joins
the log context.

A failed authentication is raised one layer further in, inside the audit layer, so that it is recorded like
every other refusal.
"""

from __future__ import annotations

import structlog

from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.pipeline import Proceed


async def authentication(call: Call, proceed: Proceed) -> bytes:
    """Names the caller in every log line of the call."""
    if call.principal is None:
        return await proceed()
    with structlog.contextvars.bound_contextvars(username=call.principal.username):
        return await proceed()
