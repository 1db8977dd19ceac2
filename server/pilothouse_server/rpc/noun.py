"""One value that each noun passes to the composition root.

It keeps `app.py` independent of the nouns' modules. It contains no reconciler: reconcilers are in `reconcile/`, above
the nouns, which do not depend on them.
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

# Marks all resources of a noun in a namespace for deletion.
Cascade = Callable[[Transaction, NamespaceRef], Awaitable[None]]
# Raises PermissionDenied for the first resource of a noun in a namespace that the caller may not delete.
RefuseCascade = Callable[[ReadTransaction, NamespaceRef, May], Awaitable[None]]
# Removes all resources of a noun in a namespace from the database, with their events; the cluster keeps its objects.
Forget = Callable[[Transaction, NamespaceRef], Awaitable[None]]
# Returns how many resources of each kind a namespace contains, those being deleted included: kind in words -> number.
Held = Callable[[ReadTransaction, NamespaceId], Awaitable[Mapping[str, int]]]


class Service(Protocol):
    """Serves the methods of a gRPC service; each is a method of the same name."""

    DESCRIPTOR: ServiceDescriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class InNamespaces:
    """How the resources of a noun in a namespace are deleted, forgotten and counted with the namespace."""

    cascade: Cascade
    forget: Forget
    held: Held
    refuse_cascade: RefuseCascade | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """One noun of the API.

    `watched`: how its watched resources are loaded and rendered, by type. `rendered`: the same for resources whose
    messages are not stored next to their rows. `permissions`: those that its operations require in addition to the
    ones that its methods declare. `in_namespaces` is None for a noun whose resources are not in namespaces. `jobs` are
    its periodic work. `watches`: its parts of watches of several nouns.
    """

    service: Service
    watched: Mapping[str, Watched] = field(default_factory=dict)
    rendered: Mapping[str, Renderer] = field(default_factory=dict)
    permissions: frozenset[str] = frozenset()
    in_namespaces: InNamespaces | None = None
    jobs: tuple[Periodic, ...] = ()
    watches: Mapping[str, NounWatch] = field(default_factory=dict)
