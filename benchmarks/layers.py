"""The layer of the product that a stack belongs to: the innermost frame that belongs to a layer decides.

Work that a layer does in general libraries (the standard library with asyncio, msgspec, orjson) counts for the layer.
The database (asyncpg, SQLAlchemy, `store/`) consists of layers of its own, with a note of the layer that called it.
Stacks without a layer belong to the event loop and to gRPC's core: its Cython code has no frames.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

# The file and the function of a frame.
Frame = tuple[str, str]

LOOP = "gRPC and event loop"
ASYNCPG = "asyncpg"
SQLALCHEMY = "SQLAlchemy"
STORE = "store"
_DATABASE = frozenset((ASYNCPG, SQLALCHEMY, STORE))
_SOCKET = "answers that arrive"
# SQLAlchemy runs its own code in greenlets, whose stacks end where they begin.
_GREENLET = "nobody in its greenlet"

# Layers and the pattern of their files; the first match counts.
_LAYERS: Sequence[tuple[str, str]] = (
    (ASYNCPG, r"/asyncpg/"),
    (SQLALCHEMY, r"/sqlalchemy/"),
    ("audit", r"pilothouse_server/(rpc/interceptors/audit|rpc/redaction|store/(audit_|append)\w*)\.py$"),
    ("feed, hub and watches", r"pilothouse_server/(store/feed|watch/|rpc/watch)"),
    ("idempotency", r"pilothouse_server/(rpc/idempotency|store/idempotency_keys)\.py$"),
    (STORE, r"pilothouse_server/store/|pilothouse_server/\w+/(repository|tables)"),
    (
        "authentication",
        r"pilothouse_server/(identity/(authenticator/token_authenticator|tokens)|rpc/interceptors/authentication)\.py$",
    ),
    ("authorization", r"pilothouse_server/(rpc/interceptors/authorization\.py$|authorization/)"),
    ("validation", r"pilothouse_server/rpc/(interceptors/validation|validation|field_checks|formats)\.py$"),
    ("converter and messages", r"^<converter of|pilothouse_server/(rpc/converter/|\w+/messages)"),
    ("pipeline and other layers", r"pilothouse_server/(rpc|flowcontrol)/"),
    ("reconciler", r"pilothouse_server/(reconcile|kubernetes|clusters)/"),
    ("handler and rules", r"pilothouse_server/(?!(?:values|runtime|launch|cli)/)\w+/"),
)
_PATTERNS = tuple((layer, re.compile(pattern)) for layer, pattern in _LAYERS)
ORDER = (LOOP, *(layer for layer, _ in _LAYERS))


def layer_of(stack: Sequence[Frame]) -> tuple[str, str]:
    """Returns the layer; for a layer of the database, also the layer that called it, else an empty text."""
    layer = ""
    for file, function in stack:
        found = _layer(file)
        if layer:
            if found and found not in _DATABASE:
                return layer, found
        elif function.startswith("_SelectorSocketTransport._read_ready"):
            # gRPC reads its sockets in C, and no call accesses a cluster, so these bytes come from the database.
            return ASYNCPG, _SOCKET
        elif found in _DATABASE:
            layer = found
        elif found:
            return found, ""
    return (layer, _GREENLET) if layer else (LOOP, "")


@cache
def _layer(file: str) -> str:
    return next((layer for layer, pattern in _PATTERNS if pattern.search(file)), "")


def function_of(stack: Sequence[Frame]) -> str:
    """Returns the innermost frame that belongs to a layer, as text; without one, the innermost frame."""
    file, function = next(((f, q) for f, q in stack if _layer(f)), stack[0])
    return f"{_short(file)} {function}"


def functions_of(stack: Sequence[Frame]) -> set[str]:
    """Returns all frames of a stack that belong to a layer of the product itself, as text."""
    found = ((file, function) for file, function in stack if "pilothouse_server/" in file and _layer(file))
    return {f"{_short(file)} {function}" for file, function in found}


def _short(file: str) -> str:
    for begin in ("pilothouse_server/", "site-packages/"):
        if begin in file:
            return file.partition(begin)[2]
    return "/".join(file.rsplit("/", 2)[-2:])
