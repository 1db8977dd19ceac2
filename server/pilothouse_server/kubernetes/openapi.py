"""The schemas of a cluster's own OpenAPI, one document for each group and version.

A dry run uses them for fields that the tables in the wheel do not have: those of a later Kubernetes, or of a vendor.
Only types, names, required fields and enums are read, and references are followed only within the same document. A
document is parsed in a thread, and once for each hash that the cluster gives it. If a cluster has no document that can
be read, only the tables are used.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from pilothouse_manifests.schemas.definitions import Schemas
from pilothouse_manifests.schemas.openapi import definitions_of
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import UNREADABLE, ClusterError

_ROOT: Final = "/openapi/v3"
_MOST_BYTES: Final = 8 * 1024 * 1024
_MOST_KEPT: Final = 32


class _Index(msgspec.Struct):
    paths: dict[str, dict[str, str]] = {}


class ClusterSchemas:
    """The last schemas that this process read from clusters, by the address and the hash of their documents."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Schemas] = OrderedDict()

    async def read(self, client: ClusterClient, api_version: str) -> Schemas | None:
        """Returns the schemas of a group as its cluster has them now; None if it has none that can be read."""
        try:
            index = msgspec.json.decode(await client.document(_ROOT, {}), type=_Index)
            group = f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"
            address = index.paths.get(group, {}).get("serverRelativeURL", "")
            if not address.startswith(f"{_ROOT}/"):
                return None
            key = client.server, address
            if "hash=" in address and key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            parts = urlsplit(address)
            body = await client.document(parts.path, dict(parse_qsl(parts.query)))
            if len(body) > _MOST_BYTES:
                return None
            found = await asyncio.to_thread(_parsed, body)
        except (ClusterError, *UNREADABLE):
            return None
        self._kept[key] = found
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return found


def _parsed(body: bytes) -> Schemas:
    """Parses a document. Raises ValueError if it has another form."""
    document = msgspec.json.decode(body)
    try:
        return Schemas(definitions_of(document))
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("the document has another form") from error


# One for the process: entries depend on the server's address and the document's hash, not on the caller.
CLUSTER_SCHEMAS: Final = ClusterSchemas()
