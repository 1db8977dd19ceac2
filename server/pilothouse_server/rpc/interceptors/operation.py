"""Gives the call its identity: the id by which log lines, the audit record and the caller name it.

Each log line of the call has the id, the method and the caller. These fields are made only when a line is logged,
and most calls log none.
"""

from __future__ import annotations

from contextvars import Token
from typing import Any

from pilothouse_server.rpc.call import Call
from pilothouse_server.runtime.log_lines import SCOPE

OPERATION_KEY = "pilothouse-operation-id"


class Identified:
    """Sends the operation id of the call as trailing metadata, and adds it to the log lines of the block."""

    __slots__ = ("_call", "_token")

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> None:
        call = self._call
        call.trailing_metadata[OPERATION_KEY] = call.operation
        self._token: Token[Any] = SCOPE.set(call.log_fields)

    def __exit__(self, *_: object) -> None:
        SCOPE.reset(self._token)
