"""The rules of namespaces: names, the cluster that they are on, quota, deletion.

An operation commits the desired state together with work for the reconciler, which creates and deletes the Kubernetes
namespace. A namespace is marked for deletion and stays visible until its cluster has released it. Only then is the row
ended (`deleted_at`) and its name free. Rows are never deleted, because the audit log refers to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from pilothouse_manifests.name_patterns import pattern_problem
from pilothouse_server.authorization.access import May
from pilothouse_server.clusters.operations.registration import (
    locate_for_namespace,
)
from pilothouse_server.errors import (
    FailedPrecondition,
    PermissionDenied,
    already_exists,
    invalid,
    not_found,
)
from pilothouse_server.identity.credentials.operations.account_credentials import end_in_namespace
from pilothouse_server.kubernetes.conditions import APPLIED
from pilothouse_server.kubernetes.errors import LABEL_LOST, NAME_TAKEN
from pilothouse_server.namespaces import repository
from pilothouse_server.namespaces.contents import Contents
from pilothouse_server.namespaces.guarded import LIMITS, Guarded, refuse_guarded
from pilothouse_server.namespaces.manifests import asked_level
from pilothouse_server.namespaces.model import Namespace, Quota
from pilothouse_server.store.unit_of_work import Event, Kind, ReadTransaction, Transaction
from pilothouse_server.values.hosts import HostError, normalised
from pilothouse_server.values.quantity import normalise

DEFAULT_CLUSTER = "local"
RESERVED_DOMAIN = "pilothouse.dev"
# A label value that is not a level may be longer than the column `pod_security_level`, and is cut.
LONGEST_LEVEL = 20


async def locate(transaction: ReadTransaction, name: str, lock: repository.Lock = "") -> Namespace:
    """Returns the existing namespace of this name.

    `lock="share"` prevents its deletion until the transaction ends. `"update"` also blocks others that count against
    its quota.

    Raises:
        NotFound: there is none, or the caller may not see it.
    """
    if isinstance(transaction, Transaction) and name in transaction.namespaces:
        held: Namespace = transaction.namespaces[name]
        return held
    found = await repository.find(transaction, name, lock)
    if found is None:
        raise not_found("namespace", name)
    return found


class Rights(msgspec.Struct, frozen=True):
    """A caller's rights to a namespace in addition to the method's permission. `may_adopt`: may take one over."""

    guarded: Guarded
    may: May
    may_adopt: bool


async def create(transaction: Transaction, wanted: Namespace, *, adopt: bool, caller: Rights) -> Namespace:
    """Creates a namespace. `wanted.kubernetes_name` and `.cluster_name` may be empty for their defaults.

    It gets the Pod Security level of the settings if its labels name none. A namespace that is taken over keeps its
    level.

    Raises:
        InvalidArgument: a reserved Kubernetes name, or labels of the platform's own domain.
        NotFound: the cluster.
        AlreadyExists: the name, or the Kubernetes name on that cluster.
        FailedPrecondition: the cluster is being deregistered; HOSTS_OVERLAP: another namespace has overlapping hosts.
        PermissionDenied: `adopt` without every permission over every namespace; a quota, or labels that clusters act
            on, without the permission for it.
    """
    kubernetes_name = wanted.kubernetes_name or wanted.name
    cluster_name = wanted.cluster_name or DEFAULT_CLUSTER
    if kubernetes_name == "default" or kubernetes_name.startswith("kube-"):
        # Without a Kubernetes name the namespace's name is used for it. The error names the field that the caller set.
        field, way_out = "namespace.kubernetes_name", ""
        if not wanted.kubernetes_name:
            field, way_out = "namespace.name", "; take another name, or give another kubernetes_name"
        raise invalid(
            field,
            f'must not be "default" or begin with "kube-": these belong to the cluster{way_out}',
            reason="RESERVED_NAME",
        )
    _check_keys(wanted, ("labels", "annotations"))
    _check_patterns(wanted)
    wanted = _with_normal_hosts(wanted)
    refuse_guarded(wanted.name, None, wanted, caller.guarded.keys, caller.may)
    if adopt:
        _check_adoption(may=caller.may_adopt)
    await locate_for_namespace(transaction, cluster_name)
    taken = await repository.find(transaction, wanted.name)
    if taken is not None:
        being_deleted = taken.deletion_requested_at is not None
        raise already_exists("namespace", wanted.name, being_deleted=being_deleted)
    level = "" if adopt else caller.guarded.level
    created = await repository.insert_namespace(
        transaction,
        {
            "name": wanted.name,
            "display_name": wanted.display_name or None,
            "description": wanted.description or None,
            "kubernetes_name": kubernetes_name,
            "cluster_name": cluster_name,
            "status": wanted.status,
            "resource_quota": _quota_document(wanted.quota),
            "labels": wanted.labels,
            "annotations": wanted.annotations,
            "legal_hold": wanted.legal_hold,
            "service_types": list(wanted.service_types),
            "external_sources": list(wanted.external_sources),
            "allowed_hosts": await _hosts_of_new(transaction, wanted, cluster_name, caller.guarded),
            "network_policies": wanted.network_policies,
            "enforce_on_cluster": wanted.enforce_on_cluster,
            "adopted": adopt,
            "default_pod_security": level,
            "pod_security_level": _shown_level(wanted, default_pod_security=level),
        },
    )
    await _changed(transaction, created, "added")
    return created


async def change(
    transaction: Transaction,
    name: str,
    wanted: Namespace,
    paths: Sequence[str],
    check: Callable[[Namespace], None],
    *,
    adopt: bool = False,
    caller: Rights,
) -> Namespace:
    """Changes the fields in `paths` to those of `wanted`; `check` may refuse the stored version (etag).

    `adopt`: takes over a Kubernetes namespace of another owner. One that was applied belongs to the platform already.

    Raises:
        NotFound: the namespace.
        FailedPrecondition: it is being deleted.
        PermissionDenied: `adopt` without every permission over every namespace; a change of the quota, or of labels
            that clusters act on, without the permission for it.
    """
    stored = await locate(transaction, name, "update")
    check(stored)
    refuse_deleting(stored)
    wanted = _with_normal_hosts(wanted)
    values = _changed_values(stored, wanted, paths)
    refuse_guarded(name, stored, _with(stored, wanted, paths), caller.guarded.keys, caller.may)
    if adopt:
        _check_adoption(may=caller.may_adopt)
        if is_foreign(stored) or not (stored.adopted or is_applied(stored)):
            # The Kubernetes namespace keeps its level, and the generation observed before the adoption does not count.
            values |= {"adopted": True, "default_pod_security": "", "observed_generation": 0}
    if not values:
        return stored
    _check_keys(wanted, values.keys() & {"labels", "annotations"})
    _check_patterns(wanted)
    followed = bool(
        values.keys() & {"labels", "annotations", "adopted", "resource_quota", "enforce_on_cluster"}
    )
    if followed:
        values["generation"] = stored.generation + 1
        if not stored.observed_generation:
            asked = {name: values[name] for name in ("labels", "default_pod_security") if name in values}
            values["pod_security_level"] = _shown_level(stored, **asked)
    changed = await repository.update_namespace(transaction, stored, values)
    await _changed(transaction, changed, "modified", stored, enqueue=followed)
    return changed


async def delete(
    transaction: Transaction,
    name: str,
    *,
    cascade: bool,
    contents: Contents,
    check: Callable[[Namespace], None],
    may: May,
) -> Namespace:
    """Marks a namespace for deletion, with its contents if `cascade`. One that is marked already is returned unchanged.

    Raises:
        NotFound: the namespace.
        PermissionDenied: it contains a resource that the caller may not delete.
        FailedPrecondition: it is under a legal hold; or it is not empty and `cascade` is not set: metadata has the
            counts.
    """
    stored = await locate(transaction, name, "update")
    check(stored)
    if stored.legal_hold:
        raise FailedPrecondition(
            f'namespace "{name}" is under a legal hold: lift the hold before you delete it',
            reason="LEGAL_HOLD",
        )
    if not cascade:
        await _refuse_holding(transaction, stored, contents)
    for noun in contents.nouns:
        if noun.refuse_cascade is not None:
            await noun.refuse_cascade(transaction, stored.ref, may)
        await noun.cascade(transaction, stored.ref)
    if stored.deletion_requested_at is not None:
        return stored
    marked = await repository.update_namespace(
        transaction,
        stored,
        {
            "deletion_requested_at": await transaction.moment(),
            "phase": "Terminating",
            "generation": stored.generation + 1,
        },
    )
    await _changed(transaction, marked, "modified", stored)
    return marked


def is_applied(namespace: Namespace) -> bool:
    """Returns whether the Kubernetes namespace was last observed to exist and to belong to the platform."""
    return any(each.type == APPLIED and each.status == "True" for each in namespace.conditions)


def is_foreign(namespace: Namespace) -> bool:
    """Returns whether the Kubernetes namespace was last observed to belong to another owner.

    Servers cache callers together with the names of such namespaces.
    """
    return any(
        each.type == APPLIED and each.status == "False" and each.reason in (NAME_TAKEN, LABEL_LOST)
        for each in namespace.conditions
    )


def refuse_deleting(namespace: Namespace) -> None:
    """Raises FailedPrecondition if the namespace is being deleted."""
    if namespace.deletion_requested_at is not None:
        raise FailedPrecondition(
            f'namespace "{namespace.name}" is being deleted', reason="NAMESPACE_TERMINATING"
        )


def refuse_inactive(namespace: Namespace) -> None:
    """Raises FailedPrecondition unless the namespace accepts new work."""
    refuse_deleting(namespace)
    if namespace.status != "active":
        raise FailedPrecondition(
            f'namespace "{namespace.name}" is inactive and accepts no new work', reason="NAMESPACE_INACTIVE"
        )


list_page = repository.list_namespaces
stream = repository.stream_namespaces
get_many = repository.get_many
find_cached = repository.find_cached


class NamespacesOnCluster:
    """The namespaces on a cluster that is deregistered (`clusters.operations.deregistration.ClusterContents`)."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents

    async def lock(self, transaction: Transaction, cluster: str) -> int:
        """Locks the namespaces on a cluster until the transaction ends; returns their number."""
        return len(await repository.on_cluster(transaction, cluster))

    async def delete_all(self, transaction: Transaction, cluster: str) -> None:
        """Marks the namespaces on a cluster for deletion, with their contents."""
        for namespace in await repository.on_cluster(transaction, cluster):
            await delete(
                transaction,
                namespace.name,
                cascade=True,
                contents=self._contents,
                check=lambda _: None,
                # A caller that may deregister the cluster may delete everything on it.
                may=lambda _: True,
            )

    async def forget_all(self, transaction: Transaction, cluster: str) -> None:
        """Removes a cluster's namespaces, with their contents, from the database; the cluster keeps its objects."""
        for namespace in await repository.on_cluster(transaction, cluster):
            for noun in self._contents.nouns:
                await noun.forget(transaction, namespace.ref)
            await _refuse_holding(transaction, namespace, self._contents)
            await end(transaction, namespace)


async def end(transaction: Transaction, namespace: Namespace) -> None:
    """Ends a locked, empty namespace, and emits its deletion.

    Its row stays for the audit records. Its grants are deleted, so that a new namespace of the same name starts without
    grants.
    """
    await repository.end(transaction, namespace.id)
    await end_in_namespace(transaction, namespace.id)
    transaction.emit(event(msgspec.structs.replace(namespace, status="inactive"), "deleted", namespace))


def event(namespace: Namespace, kind: Kind, before: Namespace | None = None) -> Event:
    """Returns the event of a change of a namespace.

    The event belongs to the namespace itself, so every caller who may see the namespace sees the event.
    """
    return Event(
        resource_type="namespace",
        resource_id=namespace.id,
        namespace_id=namespace.id,
        name=namespace.name,
        kind=kind,
        entity=namespace,
        labels=namespace.labels,
        status=namespace.status,
        labels_before=None if before is None else before.labels,
        status_before=None if before is None else before.status,
    )


async def _refuse_holding(transaction: ReadTransaction, namespace: Namespace, contents: Contents) -> None:
    """Raises FailedPrecondition if the namespace is not empty; metadata has the counts."""
    held = await contents.count(transaction, namespace.id)
    if not held:
        return
    counts = ", ".join(f"{count} {kind}" for kind, count in held.items())
    raise FailedPrecondition(
        f'namespace "{namespace.name}" is not empty: it has {counts}; delete them first or set cascade',
        reason="NAMESPACE_NOT_EMPTY",
        metadata={kind.replace(" ", "_"): str(count) for kind, count in held.items()},
    )


async def _changed(
    transaction: Transaction,
    namespace: Namespace,
    kind: Kind,
    before: Namespace | None = None,
    *,
    enqueue: bool = True,
) -> None:
    transaction.emit(event(namespace, kind, before))
    if enqueue:
        going = namespace.deletion_requested_at is not None
        await transaction.enqueue(
            "namespace", namespace.id, namespace.cluster_name, namespace.id, going=going
        )


def _check_adoption(*, may: bool) -> None:
    if not may:
        raise PermissionDenied(
            "taking over a Kubernetes namespace needs every permission over every namespace",
            reason="PERMISSION_DENIED",
            metadata={"permission": "*"},
        )


def _changed_values(stored: Namespace, wanted: Namespace, paths: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path in paths:
        if path.split(".")[0] == "resource_quota":
            quota = _merged_quota(stored.quota, wanted.quota, path)
            if quota != stored.quota:
                values["resource_quota"] = _quota_document(quota)
                stored = msgspec.structs.replace(stored, quota=quota)
        elif getattr(wanted, path) != getattr(stored, path):
            value = getattr(wanted, path)
            values[path] = list(value) if isinstance(value, tuple) else value
    return values


def _shown_level(namespace: Namespace, **asked: Any) -> str:
    """Returns the level of a namespace before its first apply, so that it is known without waiting for the cluster."""
    return asked_level(msgspec.structs.replace(namespace, **asked))[:LONGEST_LEVEL]


def _with(stored: Namespace, wanted: Namespace, paths: Sequence[str]) -> Namespace:
    """Returns the stored namespace with the guarded parts of `wanted`."""
    quota = stored.quota
    for path in paths:
        if path.split(".")[0] == "resource_quota":
            quota = _merged_quota(quota, wanted.quota, path)
    return msgspec.structs.replace(
        stored,
        # A different spelling of the same quantity is not a change.
        quota=msgspec.convert(_quota_document(quota) or {}, Quota),
        labels=wanted.labels if "labels" in paths else stored.labels,
        annotations=wanted.annotations if "annotations" in paths else stored.annotations,
        legal_hold=wanted.legal_hold if "legal_hold" in paths else stored.legal_hold,
        **{name: getattr(wanted if name in paths else stored, name) for name in LIMITS},
        enforce_on_cluster=(
            wanted.enforce_on_cluster if "enforce_on_cluster" in paths else stored.enforce_on_cluster
        ),
    )


def _merged_quota(stored: Quota, wanted: Quota, path: str) -> Quota:
    _, _, part = path.partition(".")
    return msgspec.structs.replace(stored, **{part: getattr(wanted, part)}) if part else wanted


def _quota_document(quota: Quota) -> dict[str, Any] | None:
    document = {
        "containers": quota.containers,
        "cpu": normalise(quota.cpu) if quota.cpu else "",
        "memory": normalise(quota.memory) if quota.memory else "",
        "services": quota.services,
        "storage": normalise(quota.storage) if quota.storage else "",
    }
    return {name: value for name, value in document.items() if value} or None


def _check_keys(wanted: Namespace, fields: Iterable[str]) -> None:
    for field in fields:
        for key in getattr(wanted, field):
            prefix, slash, _ = key.partition("/")
            if slash and (prefix == RESERVED_DOMAIN or prefix.endswith(f".{RESERVED_DOMAIN}")):
                raise invalid(
                    f"namespace.{field}", f'"{key}": {field} of {RESERVED_DOMAIN} are set by the platform'
                )


def _check_patterns(wanted: Namespace) -> None:
    for number, pattern in enumerate(wanted.external_sources):
        if problem := pattern_problem(pattern):
            raise invalid(f"namespace.external_sources[{number}]", problem)


def _with_normal_hosts(wanted: Namespace) -> Namespace:
    """Returns the namespace with its host patterns in normal form, without duplicates."""
    hosts = []
    for number, pattern in enumerate(wanted.allowed_hosts):
        try:
            hosts.append(normalised(pattern))
        except HostError as error:
            raise invalid(f"namespace.allowed_hosts[{number}]", error.rule) from None
    return msgspec.structs.replace(wanted, allowed_hosts=tuple(dict.fromkeys(hosts)))


async def _hosts_of_new(
    transaction: Transaction, wanted: Namespace, cluster: str, guarded: Guarded
) -> list[str]:
    if wanted.allowed_hosts or not guarded.hosts:
        return list(wanted.allowed_hosts)
    taken = await repository.taken_hosts(transaction, cluster, guarded.hosts)
    return [host for host in guarded.hosts if host not in taken]


async def on_cluster(
    transaction: ReadTransaction, cluster: str, kubernetes_names: Sequence[str]
) -> dict[str, Namespace]:
    """Returns the existing namespaces of a cluster with these Kubernetes names, by Kubernetes name."""
    return await repository.by_kubernetes_names(transaction, cluster, kubernetes_names)
