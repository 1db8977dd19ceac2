"""The kinds of a cluster, and the callers that may create objects of each: the response of ListObjectKinds."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, Literal

import msgspec

from pilothouse_manifests.carried import CARRIED, group_of, is_built_in, never_taken
from pilothouse_server.clusters.model import ObjectKind
from pilothouse_server.clusters.refusals import Connect, refusal, within
from pilothouse_server.kubernetes.discovery import DiscoveredKind, all_kinds
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.objects.facts import ClusterSettings

KindAccess = Literal["tenants", "privileged", "closed", "never"]
_RBAC: Final = frozenset({"Role", "RoleBinding"})


class ListedKind(msgspec.Struct, frozen=True):
    """A kind of a cluster, and the callers that may create its objects.

    `reason` is a word; `message` states the caller's next step.
    """

    api_version: str
    kind: str
    versions: tuple[str, ...]
    access: KindAccess
    reason: str
    message: str = ""
    max_per_namespace: int = 0


async def kinds_of(connect: Connect, cluster: str, opened: ClusterSettings) -> list[ListedKind]:
    """Returns the kinds that a cluster has now, by group and name.

    Raises:
        Unavailable: the cluster does not respond in time.
        FailedPrecondition: the cluster denies the read.
    """

    async def asked() -> list[ListedKind]:
        found, preferred = await all_kinds(await connect(cluster))
        return listed(found, preferred, opened)

    try:
        return await within(asked(), cluster)
    except ClusterError as error:
        raise refusal(error, cluster) from error


def listed(
    found: Iterable[DiscoveredKind], preferred: Collection[str], opened: ClusterSettings
) -> list[ListedKind]:
    """Returns the kinds with their versions, and the callers that may create objects of each."""
    groups: dict[tuple[str, str], list[DiscoveredKind]] = {}
    for each in found:
        groups.setdefault((group_of(each.api_version), each.kind), []).append(each)
    result = []
    for (_, kind), members in sorted(groups.items()):
        versions = tuple(sorted({each.api_version for each in members}))
        carried = [version for version in versions if (version, kind) in CARRIED]
        names = carried or [version for version in versions if version in preferred] or list(versions)
        result.append(_listed(names[0], kind, versions, members, opened))
    return result


def _listed(
    api_version: str,
    kind: str,
    versions: tuple[str, ...],
    members: list[DiscoveredKind],
    opened: ClusterSettings,
) -> ListedKind:
    access, reason, message = _access(api_version, kind, members, opened.of(api_version, kind))
    most = opened.most(api_version, kind) if access in ("tenants", "privileged") else 0
    return ListedKind(api_version, kind, versions, access, reason, message, most)


def _access(
    api_version: str, kind: str, members: list[DiscoveredKind], opened: ObjectKind | None
) -> tuple[KindAccess, str, str]:
    if (never := never_taken(api_version, kind)) is not None:
        return "never", "NeverTaken", never
    if not all(each.namespaced for each in members):
        return "never", "ClusterScoped", "it belongs to the cluster and not to a namespace"
    if not any(each.is_applicable for each in members):
        return "never", "NotApplicable", "the API server does not store objects of it"
    if is_built_in(api_version, kind):
        words = "with permissions that the caller holds, or with object.rbac" if kind in _RBAC else ""
        return "tenants", "OpenByDefault", words
    if opened is None:
        return "closed", "NotOpened", "an administrator can open it in the cluster's object_kinds"
    return opened.open_to, "OpenedByAdministrator", ""
