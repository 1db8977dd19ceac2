"""One value that a noun hands to the composition root, so that `app.py` does not depend on each noun's rooms.

A reconciler is no part of it: it stands in `reconcile/`, above the nouns, which do not know it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.descriptor import ServiceDescriptor

from pilothouse_server.authorization.access import May
from pilothouse_server.rpc.watched import NounWatch
from pilothouse_server.store.backfill import Watched
from pilothouse_server.store.periodic import Periodic
from pilothouse_server.store.unit_of_work import ReadTransaction, Renderer, Transaction
from pilothouse_server.values.resources import NamespaceId, NamespaceRef

# Marks everything of a noun in a namespace for deletion.
Cascade = Callable[[Transaction, NamespaceRef], Awaitable[None]]
# Raises PermissionDenied for the first thing of a noun in a namespace that the caller may not delete.
RefuseCascade = Callable[[ReadTransaction, NamespaceRef, May], Awaitable[None]]
# Removes everything of a noun in a namespace from the database, with its events; the cluster keeps it.
Forget = Callable[[Transaction, NamespaceRef], Awaitable[None]]
# How many things of each kind a namespace holds, those being deleted included: kind in words -> number.
Held = Callable[[ReadTransaction, NamespaceId], Awaitable[Mapping[str, int]]]


class Service(Protocol):
    """Serves the methods of a gRPC service; each is a method of the same name."""

    DESCRIPTOR: ServiceDescriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class InNamespaces:
    """How a noun that lives in namespaces is deleted, forgotten and counted with one."""

    cascade: Cascade
    forget: Forget
    held: Held
    refuse_cascade: RefuseCascade | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """One noun of the API.

    `watched`: how its watched resources are loaded and rendered, by their types. `rendered`: how those are whose
    messages are not stored next to their rows. `permissions`: those that
    its operations require in addition to the ones that its methods declare. `in_namespaces` is None for a
    noun that does not live in them. `jobs` are its periodic work. `watches`: its parts of watches of several nouns.
    """

    service: Service
    watched: Mapping[str, Watched] = field(default_factory=dict)
    rendered: Mapping[str, Renderer] = field(default_factory=dict)
    permissions: frozenset[str] = frozenset()
    in_namespaces: InNamespaces | None = None
    jobs: tuple[Periodic, ...] = ()
    watches: Mapping[str, NounWatch] = field(default_factory=dict)
