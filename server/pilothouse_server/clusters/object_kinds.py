"""The kinds of custom resources that a cluster opens, and the gateways that it shares: their rules.

Kinds with an allow-list of their own, and kinds that are never taken, cannot be opened: an entry would replace their
rules. Only the cluster knows whether a kind is namespaced, so that is checked when an object is applied.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from pilothouse_manifests.carried import is_built_in, never_taken
from pilothouse_server.clusters.model import Cluster, ObjectKind
from pilothouse_server.errors import invalid
from pilothouse_server.values.document_paths import parsed

FIELDS: Final = ("object_kinds", "shared_gateways", "forbid_blocking_budgets")
_GATEWAY: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_PUBLIC: Final = ("apiVersion", "kind", "metadata")


def check(cluster: Cluster) -> None:
    """Raises InvalidArgument for the first kind, path or gateway that is invalid."""
    seen = set()
    for number, each in enumerate(cluster.object_kinds):
        field = f"cluster.object_kinds[{number}]"
        _check_kind(each, field)
        if (each.api_version, each.kind) in seen:
            raise invalid(field, f"names {each.kind} of {each.api_version} a second time")
        seen.add((each.api_version, each.kind))
    for number, gateway in enumerate(cluster.shared_gateways):
        if not _GATEWAY.fullmatch(gateway):
            words = "must be a Kubernetes namespace and a name, such as infra/public"
            raise invalid(f"cluster.shared_gateways[{number}]", words)


def column_value(cluster: Cluster, name: str) -> Any:
    """Returns a field of a cluster in the form of its column."""
    value = getattr(cluster, name)
    if name == "object_kinds":
        return msgspec.to_builtins(value)
    return list(value) if isinstance(value, tuple) else value


def _check_kind(each: ObjectKind, field: str) -> None:
    if why := never_taken(each.api_version, each.kind):
        raise invalid(f"{field}.kind", f"{each.kind} of {each.api_version} cannot be opened: {why}")
    if is_built_in(each.api_version, each.kind):
        raise invalid(
            f"{field}.kind", f"{each.kind} of {each.api_version} is open already, with built-in rules"
        )
    for name in ("secret_paths", "refused_paths"):
        for number, path in enumerate(getattr(each, name)):
            try:
                parsed(path)
            except ValueError:
                words = "must be a path such as spec.users.password or metadata.annotations[example.com/key]"
                raise invalid(f"{field}.{name}[{number}]", words) from None
    for number, path in enumerate(each.secret_paths):
        if parsed(path)[0] in _PUBLIC:
            words = "must not begin with metadata: callers that list an object see its name, labels and annotations"
            raise invalid(f"{field}.secret_paths[{number}]", words)
