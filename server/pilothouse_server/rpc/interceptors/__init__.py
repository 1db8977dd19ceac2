"""The layers of every call, one per file, in one order for all call shapes (see `rpc.pipeline`).

The layers that never wait (telemetry, errors, operation) run in one coroutine, `outer`.
"""

from __future__ import annotations

from pilothouse_server.rpc.interceptors.audit import AuditLayer
from pilothouse_server.rpc.interceptors.authorization import AuthorizationLayer
from pilothouse_server.rpc.interceptors.outer import outer
from pilothouse_server.rpc.interceptors.validation import validation
from pilothouse_server.rpc.pipeline import Layer


def standard_layers(audit: AuditLayer, authorization: AuthorizationLayer) -> tuple[Layer, ...]:
    """Returns the layers, outermost first.

    Unary calls and streams use this one list, so their order cannot differ. The stored response of a replay is
    returned by the innermost layer, because the caller must still be allowed to make the call.
    """
    return (outer, audit, authorization, validation, audit.replay)
