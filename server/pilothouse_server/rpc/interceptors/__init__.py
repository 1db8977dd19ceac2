"""The layers of every call, one a file, in one order for all call shapes (see `rpc.pipeline`).

Those that never wait (telemetry, errors, operation) run in one coroutine, `outer`.
"""

from __future__ import annotations

from pilothouse_server.rpc.interceptors.audit import AuditLayer
from pilothouse_server.rpc.interceptors.authorization import AuthorizationLayer
from pilothouse_server.rpc.interceptors.outer import outer
from pilothouse_server.rpc.interceptors.validation import validation
from pilothouse_server.rpc.pipeline import Layer


def standard_layers(audit: AuditLayer, authorization: AuthorizationLayer) -> tuple[Layer, ...]:
    """The layers, outermost first.

    Unary calls and streams take this one list, so their order cannot differ. A replay is answered last of
    all: the caller must still be allowed to ask.
    """
    return (outer, audit, authorization, validation, audit.replay)
