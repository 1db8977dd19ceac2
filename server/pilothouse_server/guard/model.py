"""The guard's findings, and the annotation and label keys that a setting lists."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from pilothouse_server.values.key_patterns import KeyPatterns

PRIVILEGED: Final = "container.privileged"
PRIVILEGED_OBJECT: Final = "object.privileged"
HOST_PATH: Final = "storage.host_path"
RBAC_OBJECT: Final = "object.rbac"
# The rule for a host that the namespace may not use.
HOST: Final = "host"

# From the root of the object to a field: keys of mappings, positions in lists.
Steps = tuple[str | int, ...]


class Keys(msgspec.Struct, frozen=True):
    """Annotation and label keys, by the permission to set them.

    `free`: keys of Services that everybody may set. `guarded`: keys of pods that only privileged callers may set.
    """

    free: KeyPatterns
    guarded: KeyPatterns


# For callers that have already checked the keys: no key causes a finding.
UNGUARDED: Final = Keys(free=KeyPatterns("*"), guarded=KeyPatterns(""))


class GuardViolation(msgspec.Struct, frozen=True):
    """A part of an object that not everybody may send.

    `rule`: the name of the rule. `words`: the effect of the field, worded to follow its path. `what`: the value,
    independent of its position in the object. `permission`: the permission that a caller needs to send the part; empty
    if nobody may send it. `instead`: another permission that also suffices.
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
        """The right that the part gives, independent of its position in the object: `capabilities NET_ADMIN`."""
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
    """A kind of custom resources that a cluster opens.

    `to_tenants`: whether it is open to everybody, or only to holders of `object.privileged`. `refused_paths`: fields
    that only those holders may set, as steps of `values.document_paths`.
    """

    api_version: str
    kind: str
    to_tenants: bool = False
    refused_paths: tuple[tuple[str, ...], ...] = ()


class CarriedFacts(msgspec.Struct, frozen=True):
    """The facts that carried objects are compared with. None: not compared.

    `allowed_hosts`: patterns in normal form. `shared_gateways`: `namespace/name` on the cluster. `roles`: the documents
    of the namespace's Roles by name, for RoleBindings. `scalable`: the namespace's containers, by kind and name on the
    cluster, for HPAs. `pods`: the number of pods that a PodDisruptionBudget selects. `opened`: the kind of a custom
    resource.
    """

    allowed_hosts: Collection[str] | None = None
    shared_gateways: Collection[str] | None = None
    roles: Mapping[str, Mapping[str, Any]] | None = None
    scalable: Collection[tuple[str, str]] | None = None
    pods: int | None = None
    policies_protected: bool = False
    forbid_blocking_budgets: bool = False
    opened: OpenedKind | None = None


# For writes: the object was compared when it was admitted.
UNCOMPARED: Final = CarriedFacts()


class Admitted(msgspec.Struct, frozen=True):
    """The content that is allowed in an object that is written to a cluster.

    `namespace`: the Kubernetes namespace. `ours`: keys of `pilothouse.dev` that the platform sets. `rights`: the rights
    that a caller was allowed to give; None if no caller was checked, so that only content that nobody may send is
    refused. `opened`: the kind of a custom resource.
    """

    namespace: str
    ours: frozenset[str] = frozenset()
    rights: frozenset[str] | None = None
    opened: OpenedKind | None = None
