"""The objects that request handlers share: the store, the clock, and the target of a request."""

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
        """Ends the stream as if its timeout had expired."""


@dataclass(frozen=True)
class RequestTarget:
    """The object that a path addresses.

    An empty `name` means a collection; `namespace` None means all, or cluster-scoped.

    `watch_prefix` is set for the deprecated `/watch/` form. `rest` is the part after a proxy subresource.
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
    """The state that all handlers of one server share.

    `closing`: the server is shutting down, and its watches send nothing. `ready`: the result of /readyz. `late_writes`
    are writes that are still running after their requests got a response.
    """

    store: ObjectStore
    clock: Clock
    faults: FaultPlan
    streams: set[OpenStream] = field(default_factory=set)
    # Connections with a request in progress.
    busy: set[asyncio.BaseTransport] = field(default_factory=set)
    late_writes: set[asyncio.Future[web.StreamResponse]] = field(default_factory=set)
    closing: bool = False
    ready: bool = True

    def __post_init__(self) -> None:
        self.store.types.on_removed.append(self._finish_watches)

    def _finish_watches(self, resource: ResourceType) -> None:
        """Ends the watches of a custom resource whose definition is deleted."""
        for stream in tuple(self.streams):
            if stream.resource is resource:
                stream.finish()

    def presenter(self, request: web.Request, target: RequestTarget) -> Presenter:
        """Returns the form of the response to this request.

        Raises 406 if the client accepts no form that can be served.
        """
        whole = request.query.get("includeObject") == "Object"

        def table(resource: ResourceType, objects: list[JsonObject], with_columns: bool) -> JsonObject:
            return build_table(resource, objects, self.store.now(), with_columns=with_columns, whole=whole)

        return Presenter(target.resource, negotiate(request.headers.get("Accept")), table, target.api_version)

    def deprecations(self, resource: ResourceType) -> Warnings:
        """Returns the Warning headers for deprecated kinds."""
        return [warning(_ENDPOINTS_WARNING)] if resource is ENDPOINTS else []

    def warnings(self, resource: ResourceType, obj: JsonObject, old: JsonObject | None) -> Warnings:
        """Returns the Warning headers for a written object; `old` is its former version."""
        texts = pod_security.warnings(self.store, resource, obj, old)
        return [warning(text) for text in [*texts, *webhooks.warnings(self.faults.webhooks, resource)]]


def warning(text: str) -> tuple[str, str]:
    """Returns the Warning header with this text."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return ("Warning", f'299 - "{escaped}"')


def parse_path(path: str, types: ResourceTypes, *, known: bool = True) -> RequestTarget | None:
    """Returns the resource of `types` that a path below /api or /apis addresses, or None if there is none.

    With `known` False, also returns a target for an unknown resource: callers without rights must not learn that it
    does not exist.
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
