"""Labels by which the platform recognizes its own objects on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilothouse_server.kubernetes.objects import Manifest

DOMAIN = "pilothouse.dev"
CONTAINER_UID = f"{DOMAIN}/container-uid"
CONFIG_UID = f"{DOMAIN}/config-uid"
OBJECT_UID = f"{DOMAIN}/object-uid"
NAMESPACE = f"{DOMAIN}/namespace"
NAMESPACE_UID = f"{DOMAIN}/namespace-uid"
MANAGED_BY = "app.kubernetes.io/managed-by"
NAME = "app.kubernetes.io/name"
MANAGER = "pilothouse"
MANAGED_SELECTOR = f"{MANAGED_BY}={MANAGER}"


def label_value(name: str) -> str:
    """Returns a name as a label's value. Our names are DNS labels of at most 63 characters, so none is changed."""
    return name[:63]


def without_empty(fields: Mapping[str, Any]) -> Manifest:
    """Returns the fields of a manifest that are not empty."""
    return {key: value for key, value in fields.items() if value not in (None, "", {}, [])}
