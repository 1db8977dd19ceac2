"""Findings of the guard in an object, and the keys of annotations and labels that a setting names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from pilothouse_server.values.key_patterns import KeyPatterns

PRIVILEGED: Final = "container.privileged"
PRIVILEGED_OBJECT: Final = "object.privileged"
HOST_PATH: Final = "storage.host_path"
RBAC_OBJECT: Final = "object.rbac"
# The rule of a host that is not among those of the namespace.
HOST: Final = "host"

# From the root of the object to a field: keys of mappings, positions in lists.
Steps = tuple[str | int, ...]


class Keys(msgspec.Struct, frozen=True):
    """Keys by the permission to set them: everybody may set `free` ones of Services, few callers `guarded` ones of
    pods.
    """

    free: KeyPatterns
    guarded: KeyPatterns


# For callers that have checked keys before: no key is found.
UNGUARDED: Final = Keys(free=KeyPatterns("*"), guarded=KeyPatterns(""))


class GuardViolation(msgspec.Struct, frozen=True):
    """A part of an object that not everybody may send.

    `rule`: its name. `words`: the effect of the field, after its path. `what`: the value, at any place. `permission`:
    the one that a caller needs to send it; empty: it is never sent. `instead`: one that suffices as well.
    """

    steps: Steps
    rule: str
    words: str
    what: tuple[str, ...] = ()
    permission: str = PRIVILEGED
    instead: str = ""

    @property
    def path(self) -> str:
        """The path as Kubernetes writes it: `spec.template.spec.containers[0].image`."""
        return written(self.steps)

    @property
    def right(self) -> str:
        """The right that the part gives, at any place in the pods: `capabilities NET_ADMIN`."""
        return " ".join((self.rule, *self.what))


def written(steps: Steps) -> str:
    """Returns a path as Kubernetes writes it; keys with "." or "/" are in brackets."""
    text = ""
    for step in steps:
        if isinstance(step, int) or "/" in step or "." in step:
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


class OpenedKind(msgspec.Struct, frozen=True):
    """A kind of custom resources that a cluster opens. `to_tenants`: else only to holders of `object.privileged`.

    `refused_paths`: fields that only they may set, as steps of `values.document_paths`.
    """

    api_version: str
    kind: str
    to_tenants: bool = False
    refused_paths: tuple[tuple[str, ...], ...] = ()


class CarriedFacts(msgspec.Struct, frozen=True):
    """The facts of a namespace and its cluster that carried objects are compared with. None: not compared.

    `allowed_hosts`: patterns in normal form. `shared_gateways`: `namespace/name` on the cluster. `roles`: the documents
    of the namespace's Roles by name, for RoleBindings. `scalable`: kind and name on the cluster of its containers, for
    HPAs. `pods`: how many a PodDisruptionBudget selects. `opened`: the kind of a custom resource.
    """

    allowed_hosts: Collection[str] | None = None
    shared_gateways: Collection[str] | None = None
    roles: Mapping[str, Mapping[str, Any]] | None = None
    scalable: Collection[tuple[str, str]] | None = None
    pods: int | None = None
    policies_protected: bool = False
    forbid_blocking_budgets: bool = False
    opened: OpenedKind | None = None


# For objects that were compared before: an object is written later than it was admitted.
UNCOMPARED: Final = CarriedFacts()


class Admitted(msgspec.Struct, frozen=True):
    """The content that an object may have which is written to a cluster.

    `namespace`: the Kubernetes namespace. `ours`: keys of `pilothouse.dev` that the platform sets. `rights`: those
    that a caller was allowed to give; None: no caller was checked, so only content that is never sent is refused.
    `opened`: the kind, if it is one of custom resources.
    """

    namespace: str
    ours: frozenset[str] = frozenset()
    rights: frozenset[str] | None = None
    opened: OpenedKind | None = None
