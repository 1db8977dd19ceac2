"""The kinds that a cluster serves, from its own discovery: one document for each group and version.

Listing all kinds reads every document each time. Finding one kind reads the document of its version, which is cached
briefly: kinds come and go with the custom resource definitions of the cluster. A kind that is not found is requested
again each time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Final, Protocol

import msgspec

from pilothouse_server.kubernetes.decoding import decode
from pilothouse_server.kubernetes.errors import ClusterError, NotFound

KEPT_SECONDS: Final = 30.0
_MOST_KEPT: Final = 256
_MOST_VERSIONS: Final = 256
_AT_ONCE: Final = 8


class DiscoveredKind(msgspec.Struct, frozen=True, order=True):
    """A kind of a cluster. `verbs`: those that the API server accepts."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: tuple[str, ...] = ()

    @property
    def is_applicable(self) -> bool:
        """Whether objects of it can be applied, read and deleted."""
        return {"get", "list", "patch", "delete"} <= set(self.verbs)


class Documents(Protocol):
    """A client that reads documents of an API server."""

    @property
    def server(self) -> str: ...

    async def document(self, path: str, query: Mapping[str, str]) -> bytes: ...


class _Version(msgspec.Struct, frozen=True, rename="camel"):
    group_version: str = ""


class _Group(msgspec.Struct, rename="camel"):
    versions: list[_Version] = []
    preferred_version: _Version = _Version()


class _Groups(msgspec.Struct):
    groups: list[_Group] = []


class _ApiResource(msgspec.Struct):
    name: str = ""
    kind: str = ""
    namespaced: bool = False
    verbs: list[str] = []


class _Resources(msgspec.Struct):
    resources: list[_ApiResource] | None = None


class KindDiscovery:
    """A cache of the discovery of all clusters."""

    def __init__(self, kept_seconds: float = KEPT_SECONDS) -> None:
        self._kept_seconds = kept_seconds
        self._kept: OrderedDict[tuple[str, str], tuple[float, list[DiscoveredKind]]] = OrderedDict()

    async def find(self, client: Documents, api_version: str, kind: str) -> DiscoveredKind | None:
        """Returns a kind; None if the cluster does not serve it in this version. Raises ClusterError."""
        key = client.server, api_version
        read_at, found = self._kept.get(key, (0.0, []))
        known = next((each for each in found if each.kind == kind), None)
        if known is not None and monotonic() - read_at < self._kept_seconds:
            return known
        found = await of_version(client, api_version)
        self._kept[key] = monotonic(), found
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return next((each for each in found if each.kind == kind), None)


async def of_version(client: Documents, api_version: str) -> list[DiscoveredKind]:
    """Returns the kinds of a group and version; none if the cluster does not have it. Raises ClusterError."""
    path = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    try:
        document = decode(await client.document(path, {}), _Resources)
    except NotFound:
        return []
    return [
        DiscoveredKind(api_version, each.kind, each.name, each.namespaced, tuple(each.verbs))
        for each in document.resources or ()
        # The others are subresources.
        if "/" not in each.name
    ]


async def all_kinds(client: Documents) -> tuple[Sequence[DiscoveredKind], frozenset[str]]:
    """Returns the kinds of all groups, and the versions that the cluster prefers. Raises ClusterError.

    A group whose own server does not respond is left out.
    """
    groups = decode(await client.document("/apis", {}), _Groups).groups
    versions = ["v1", *(each.group_version for group in groups for each in group.versions)][:_MOST_VERSIONS]
    gate = asyncio.Semaphore(_AT_ONCE)

    async def read(api_version: str) -> list[DiscoveredKind]:
        async with gate:
            try:
                return await of_version(client, api_version)
            except ClusterError:
                if api_version == "v1":
                    raise
                return []

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(read(version)) for version in versions]
    preferred = frozenset({"v1", *(each.preferred_version.group_version for each in groups)})
    return [each for task in tasks for each in task.result()], preferred
