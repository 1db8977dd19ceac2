"""The Pilothouse client: `Client` blocks, `AsyncClient` is for asyncio; both are typed by the generated
stubs.

Names are imported when they are first used, because the `pilothouse` command must print `--help` without loading gRPC.

Each public name has an example in its docstring. They share a `client`, the `address` of its server, a `namespace`, and
messages of `pilothouse`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pilothouse_client.client import AsyncClient as AsyncClient
    from pilothouse_client.client import Client as Client
    from pilothouse_client.errors import AbortedError as AbortedError
    from pilothouse_client.errors import AlreadyExistsError as AlreadyExistsError
    from pilothouse_client.errors import CancelledError as CancelledError
    from pilothouse_client.errors import DeadlineExceededError as DeadlineExceededError
    from pilothouse_client.errors import FailedPreconditionError as FailedPreconditionError
    from pilothouse_client.errors import FieldViolation as FieldViolation
    from pilothouse_client.errors import InternalError as InternalError
    from pilothouse_client.errors import InvalidArgumentError as InvalidArgumentError
    from pilothouse_client.errors import NotFoundError as NotFoundError
    from pilothouse_client.errors import OutOfRangeError as OutOfRangeError
    from pilothouse_client.errors import PermissionDeniedError as PermissionDeniedError
    from pilothouse_client.errors import PilothouseError as PilothouseError
    from pilothouse_client.errors import ResourceExhaustedError as ResourceExhaustedError
    from pilothouse_client.errors import UnauthenticatedError as UnauthenticatedError
    from pilothouse_client.errors import UnavailableError as UnavailableError
    from pilothouse_client.informer import AsyncWatchInformer as AsyncWatchInformer
    from pilothouse_client.informer import WatchInformer as WatchInformer
    from pilothouse_client.names import enum_label as enum_label
    from pilothouse_client.retry import Deadlines as Deadlines
    from pilothouse_client.retry import RetryPolicy as RetryPolicy
    from pilothouse_client.streams import Change as Change
    from pilothouse_client.streams import ChangeKind as ChangeKind
    from pilothouse_client.target import Tls as Tls
    from pilothouse_client.tokens import MemoryTokenStore as MemoryTokenStore
    from pilothouse_client.tokens import Tokens as Tokens
    from pilothouse_client.tokens import TokenStore as TokenStore
    from pilothouse_client.waiting import Goal as Goal
    from pilothouse_client.waiting import WaitError as WaitError
    from pilothouse_client.workloads import Workload as Workload

_MODULE_OF = {
    "AsyncClient": "client",
    "Client": "client",
    "Change": "streams",
    "ChangeKind": "streams",
    "Deadlines": "retry",
    "RetryPolicy": "retry",
    "Tls": "target",
    "MemoryTokenStore": "tokens",
    "Tokens": "tokens",
    "TokenStore": "tokens",
    "Workload": "workloads",
    "AsyncWatchInformer": "informer",
    "WatchInformer": "informer",
    "Goal": "waiting",
    "WaitError": "waiting",
    "enum_label": "names",
    "FieldViolation": "errors",
    "PilothouseError": "errors",
    "AbortedError": "errors",
    "AlreadyExistsError": "errors",
    "CancelledError": "errors",
    "DeadlineExceededError": "errors",
    "FailedPreconditionError": "errors",
    "InternalError": "errors",
    "InvalidArgumentError": "errors",
    "NotFoundError": "errors",
    "OutOfRangeError": "errors",
    "PermissionDeniedError": "errors",
    "ResourceExhaustedError": "errors",
    "UnauthenticatedError": "errors",
    "UnavailableError": "errors",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
