"""The objects that the handlers of requests share: the store, the clock, and the address a request names."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from pilothouse_simulator.admission import pod_security, webhooks
from pilothouse_simulator.api.faults import FaultPlan
from pilothouse_simulator.api.representation import Presenter, negotiate
from pilothouse_simulator.api.tables import build_table
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.clock import Clock
from pilothouse_simulator.values.resources import ENDPOINTS, NAMESPACES, ResourceType, ResourceTypes

JsonObject = dict[str, Any]
Warnings = list[tuple[str, str]]

_ENDPOINTS_WARNING = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"


class OpenStream(Protocol):
    """A watch of one type that is being served."""

    resource: ResourceType

    def finish(self) -> None:
        """Ends the stream as if its time were over."""


@dataclass(frozen=True)
class RequestTarget:
    """The object that a path addresses. `name` empty: a collection; `namespace` None: all, or cluster-scoped.

    `watch_prefix`: the deprecated `/watch/` form. `rest`: the part after a proxy subresource.
    """

    resource: ResourceType
    api_version: str
    namespace: str | None
    name: str = ""
    subresource: str = ""
    rest: str = ""
    watch_prefix: bool = False


@dataclass
class ApiContext:
    """Shared by all handlers of one server.

    `closing`: the server is ending, and its watches are silent. `ready`: the answer of /readyz. `late_writes` are
    under way though their requests have been answered.
    """

    store: ObjectStore
    clock: Clock
    faults: FaultPlan
    streams: set[OpenStream] = field(default_factory=set)
    # Connections on which a request is being answered.
    busy: set[asyncio.BaseTransport] = field(default_factory=set)
    late_writes: set[asyncio.Future[web.StreamResponse]] = field(default_factory=set)
    closing: bool = False
    ready: bool = True

    def __post_init__(self) -> None:
        self.store.types.on_removed.append(self._finish_watches)

    def _finish_watches(self, resource: ResourceType) -> None:
        """The watches of a custom resource end with its definition."""
        for stream in tuple(self.streams):
            if stream.resource is resource:
                stream.finish()

    def presenter(self, request: web.Request, target: RequestTarget) -> Presenter:
        """How to answer this request; 406 when the client accepts nothing that can be served."""
        whole = request.query.get("includeObject") == "Object"

        def table(resource: ResourceType, objects: list[JsonObject], with_columns: bool) -> JsonObject:
            return build_table(resource, objects, self.store.now(), with_columns=with_columns, whole=whole)

        return Presenter(target.resource, negotiate(request.headers.get("Accept")), table, target.api_version)

    def deprecations(self, resource: ResourceType) -> Warnings:
        """Warning headers of deprecated kinds."""
        return [warning(_ENDPOINTS_WARNING)] if resource is ENDPOINTS else []

    def warnings(self, resource: ResourceType, obj: JsonObject, old: JsonObject | None) -> Warnings:
        """Returns the Warning headers for a written object; `old` is its former version."""
        texts = pod_security.warnings(self.store, resource, obj, old)
        return [warning(text) for text in [*texts, *webhooks.warnings(self.faults.webhooks, resource)]]


def warning(text: str) -> tuple[str, str]:
    """The header that warns."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return ("Warning", f'299 - "{escaped}"')


def parse_path(path: str, types: ResourceTypes, *, known: bool = True) -> RequestTarget | None:
    """The resource of `types` a path below /api or /apis addresses, or None when there is none.

    `known` False: also returns a target for an unknown resource, for a caller who has no right to learn that it does
    not exist.
    """
    parts = path.strip("/").split("/")
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    watch_prefix = rest[0] == "watch" and len(rest) > 1
    if watch_prefix:
        rest = rest[1:]
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in NAMESPACES.subresources:
        namespace, rest = rest[1], rest[2:]
    resource = types.find(group, version, rest[0])
    if resource is None and not known:
        resource = ResourceType(group, version, rest[0], rest[0], namespaced=namespace is not None)
    if resource is None or (namespace is not None and not resource.namespaced):
        return None
    if resource.namespaced and namespace is None and len(rest) > 1:
        return None
    api_version = f"{group}/{version}" if group else version
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if known and subresource and subresource not in resource.subresources:
        return None
    remainder = "/".join(rest[3:])
    return RequestTarget(resource, api_version, namespace, name, subresource, remainder, watch_prefix)
