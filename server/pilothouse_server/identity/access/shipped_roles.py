"""The roles that the product ships, and the permissions that each role excludes.

A shipped role's exclusions are here and not in its row, because only shipped roles have exclusions and no caller may
change them. At the start, the server updates the rows from this table (`accounts.bootstrap`).

Images go with containers: a user who may see containers sees which images they run, and only an administrator removes
an image from the list. Only administrators manage users, roles and grants. An administrator of one namespace can give
grants there, because `*` in that namespace covers `grant.*`. A role may name permissions that work only over all
namespaces (`access.OVER_ALL_NAMESPACES`), but a grant in one namespace does not give them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ShippedRole:
    """One shipped role."""

    name: str
    display_name: str
    description: str
    permissions: tuple[str, ...]
    excluded: frozenset[str] = frozenset()


ADMIN: Final = "admin"
# Permissions to read secret values, or to break out of a container to its node and everything that runs there.
_NOT_FOR_TENANTS: Final = frozenset(
    {"config.reveal", "storage.host_path", "container.privileged", "object.privileged", "object.rbac"}
)
_READING: Final = {
    "container": ("get", "list", "watch"),
    "image": ("get", "list"),
    "storage": ("get", "list", "watch"),
    "service": ("get", "list", "watch"),
    "object": ("get", "list", "watch"),
    "application": ("get", "list", "watch"),
    "config": ("get", "list", "watch"),
    "namespace": ("get", "list", "watch"),
    "metrics": ("get", "list", "watch", "query"),
    "audit": ("get", "list", "watch"),
}


# The verbs that an on-call engineer needs for existing containers.
_RESPONDING: Final = ("start", "stop", "pause", "resume", "restart", "run", "scale")


def _permissions(*nouns: str) -> tuple[str, ...]:
    return tuple(f"{noun}.{verb}" for noun in nouns for verb in _READING[noun])


SHIPPED_ROLES: Final[Mapping[str, ShippedRole]] = {
    role.name: role
    for role in (
        ShippedRole(
            ADMIN,
            "Administrator",
            "Everything.",
            ("*",),
        ),
        ShippedRole(
            "operator",
            "Operator",
            "Runs namespaces and all they hold; over all namespaces also sets their quotas and security levels. Gives "
            "containers secrets, and can read them there; cannot reveal others, reach nodes or manage users.",
            (
                "container.*",
                "storage.*",
                "service.*",
                "object.*",
                "application.*",
                "config.*",
                "metrics.*",
                *_permissions("image", "namespace", "audit"),
                "namespace.create",
                "namespace.update",
                "namespace.delete",
                "namespace.quota",
                "namespace.security",
                "cluster.get",
                "cluster.list",
            ),
            _NOT_FOR_TENANTS,
        ),
        ShippedRole(
            "developer",
            "Developer",
            "Runs containers with their volumes and configuration. Gives containers secrets, and can read them there; "
            "cannot reveal others or reach nodes.",
            (
                "container.*",
                "storage.*",
                "service.*",
                "object.*",
                "application.*",
                "config.*",
                *_permissions("image", "namespace", "metrics", "audit"),
            ),
            _NOT_FOR_TENANTS,
        ),
        ShippedRole(
            "responder",
            "Responder",
            "Sees everything and logs; starts, stops, pauses, restarts, runs and scales containers; no other changes.",
            (*_permissions(*_READING), "container.logs", *(f"container.{verb}" for verb in _RESPONDING)),
        ),
        ShippedRole(
            "observer",
            "Observer",
            "Sees everything and logs, but no secret values; changes nothing.",
            (*_permissions(*_READING), "container.logs"),
        ),
        ShippedRole(
            "viewer",
            "Viewer",
            "Sees everything but logs and secret values; changes nothing.",
            _permissions(*_READING),
        ),
        ShippedRole(
            "auditor",
            "Auditor",
            "Reads, verifies and exports the audit log, of all namespaces or of one; nothing else.",
            (*_permissions("audit"), "audit.verify", "audit.export"),
        ),
    )
}


def excluded_from(role_name: str, *, is_system: bool) -> frozenset[str]:
    """Returns the permissions that a role excludes."""
    shipped = SHIPPED_ROLES.get(role_name) if is_system else None
    return frozenset() if shipped is None else shipped.excluded
