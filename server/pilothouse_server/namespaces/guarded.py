"""The parts of a namespace that its own administrators may not change.

These are its quota, the labels and annotations that clusters act on, and the legal hold of its records. Also guarded
are the labels and annotations of its contents by which other programs copy or fill them.

A quota limits the namespace's users, and a Pod Security level keeps their containers from the nodes. A user who could
lift either would have access to resources that all tenants share. A user must also not be able to lift a legal hold on
their own records. So separate permissions guard these parts, and they work only from a grant over all namespaces
(`access.OVER_ALL_NAMESPACES`). An existing value may stay, whichever user changes the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import msgspec

from pilothouse_server.authorization.access import May
from pilothouse_server.errors import over_all_namespaces_needed
from pilothouse_server.namespaces.model import Namespace, Quota
from pilothouse_server.values.key_patterns import KeyPatterns

QUOTA_PERMISSION = "namespace.quota"
SECURITY_PERMISSION = "namespace.security"
HOLD_PERMISSION = "audit.hold"
PERMISSIONS = frozenset({QUOTA_PERMISSION, SECURITY_PERMISSION, HOLD_PERMISSION})


# Fields that need `namespace.security`, with their values in a new namespace.
LIMITS: dict[str, object] = {
    "service_types": (),
    "external_sources": (),
    "allowed_hosts": (),
    "network_policies": "open",
}


class Guarded(msgspec.Struct, frozen=True):
    """The settings of the guard.

    `keys`: labels and annotations that need `namespace.security`. `level`: Pod Security level of new namespaces, or ''.
    `hosts`: host patterns for a new namespace that names none; it gets those that no other namespace of its cluster
    has.
    """

    keys: KeyPatterns
    level: str
    hosts: tuple[str, ...] = ()


class Labelled(Protocol):
    """A resource in a namespace whose object on the cluster gets these labels and annotations."""

    @property
    def labels(self) -> Mapping[str, str]: ...

    @property
    def annotations(self) -> Mapping[str, str]: ...


class Labelling(msgspec.Struct, frozen=True):
    """The caller's rights to label: `guarded` keys need `namespace.security`, which `may` checks."""

    guarded: KeyPatterns
    may: May

    def allows(self, key: str) -> bool:
        """Returns whether the caller may set a label or an annotation with this key."""
        return key not in self.guarded or self.may(SECURITY_PERMISSION)

    def check(self, noun: str, namespace: str, stored: Labelled | None, wanted: Labelled) -> None:
        """Raises PermissionDenied for the first guarded key that would be set or changed; removing a key is allowed.

        `noun`: its name in the request, such as `config_map`. `stored`: None for a new resource.
        """
        for name in ("labels", "annotations"):
            before: Mapping[str, str] = {} if stored is None else getattr(stored, name)
            after: Mapping[str, str] = getattr(wanted, name)
            for key in sorted(after):
                if before.get(key) != after[key] and not self.allows(key):
                    field = f"{noun}.{name}"
                    raise over_all_namespaces_needed(
                        SECURITY_PERMISSION,
                        namespace,
                        f'{field} would set "{key}", which makes others on the cluster fill, bind or copy the object',
                        field=field,
                        key=key,
                    )


def refuse_guarded(
    name: str, stored: Namespace | None, wanted: Namespace, keys: KeyPatterns, may: May
) -> None:
    """Raises PermissionDenied for the first change of a guarded part that the caller may not make.

    `stored`: None for a new namespace, which is compared with the defaults.
    """
    if wanted.quota != (Quota() if stored is None else stored.quota) and not may(QUOTA_PERMISSION):
        raise over_all_namespaces_needed(
            QUOTA_PERMISSION,
            name,
            "namespace.resource_quota is a limit for the administrators of the namespace",
            field="namespace.resource_quota",
        )
    enforced = stored is not None and stored.enforce_on_cluster
    if wanted.enforce_on_cluster != enforced and not may(QUOTA_PERMISSION):
        raise over_all_namespaces_needed(
            QUOTA_PERMISSION,
            name,
            "namespace.enforce_on_cluster is a part of the limit for the administrators of the namespace",
            field="namespace.enforce_on_cluster",
        )
    if wanted.legal_hold != (stored is not None and stored.legal_hold) and not may(HOLD_PERMISSION):
        raise over_all_namespaces_needed(
            HOLD_PERMISSION,
            name,
            "namespace.legal_hold protects records from the administrators of the namespace",
            field="namespace.legal_hold",
        )
    for limit, default in LIMITS.items():
        before = default if stored is None else getattr(stored, limit)
        if getattr(wanted, limit) != before and not may(SECURITY_PERMISSION):
            raise over_all_namespaces_needed(
                SECURITY_PERMISSION,
                name,
                f"namespace.{limit} is a limit for the administrators of the namespace",
                field=f"namespace.{limit}",
            )
    for field, key in _changed_keys(stored, wanted):
        if key in keys and not may(SECURITY_PERMISSION):
            raise over_all_namespaces_needed(
                SECURITY_PERMISSION,
                name,
                f'{field} would change "{key}", which clusters act on',
                field=field,
                key=key,
            )


def _changed_keys(stored: Namespace | None, wanted: Namespace) -> Iterator[tuple[str, str]]:
    """Yields the fields and keys that would be set, changed or removed."""
    pairs: tuple[tuple[str, Mapping[str, str], Mapping[str, str]], ...] = (
        ("namespace.labels", {} if stored is None else stored.labels, wanted.labels),
        ("namespace.annotations", {} if stored is None else stored.annotations, wanted.annotations),
    )
    for field, before, after in pairs:
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                yield field, key
