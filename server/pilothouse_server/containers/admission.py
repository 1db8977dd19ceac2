"""Checks a container against its namespace before it is written: quota, service names, sources, volumes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from pilothouse_manifests.volumes import volume_name
from pilothouse_server.authorization.access import May
from pilothouse_server.config.model import Kind
from pilothouse_server.config.operations import configs
from pilothouse_server.containers import repository
from pilothouse_server.containers.config_use import claim_fields, mount_fields, refuse_use, source_fields
from pilothouse_server.containers.extra_fields import refuse_changed_selector
from pilothouse_server.containers.findings import Findings
from pilothouse_server.containers.guarding import admitted, runs_other_things
from pilothouse_server.containers.model import Container, MountedVolume
from pilothouse_server.containers.namespace_facts import NamespaceFacts, Needs
from pilothouse_server.errors import AlreadyExists, ResourceExhausted, already_exists
from pilothouse_server.guard.model import Keys
from pilothouse_server.namespaces.model import Namespace, Quota
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.quantity import Quantity
from pilothouse_server.values.resources import ObjectWarning

# The secret types that the kubelet accepts as a login to registries; it silently ignores all others.
PULL_SECRET_TYPES = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")


async def locked_namespace(transaction: Transaction, name: str) -> Namespace:
    """Returns the namespace, with a share lock that prevents its change and deletion.

    If the namespace has a quota, the transaction also takes a separate lock, so that quotas are counted one transaction
    at a time. A stronger lock on the row would deadlock two transactions that both hold the share lock.

    Raises:
        NotFound: the namespace does not exist.
    """
    namespace = await locate_namespace(transaction, name, "share")
    if namespace.quota != Quota():
        await repository.count_alone(transaction, namespace.id)
    return namespace


def needs_of(wanted: Container, stored: Container | None) -> Needs:
    """Returns the names to look up in the namespace, without the services that the stored container has."""
    sources = {kind: _sources(wanted, kind) - _read_beside(stored, kind) for kind in ("config_map", "secret")}
    mounted = {mount.volume for mount in wanted.all_mounts}
    return Needs(
        services=_services(wanted) - (_services(stored) if stored is not None else frozenset()),
        config_maps=frozenset(sources["config_map"]),
        secrets=frozenset(sources["secret"] | _pull_secrets(wanted, stored)),
        volumes=frozenset(mounted - wanted.spec.own_volumes).union(
            volume_name("claim", each) for each in _new_claims(wanted, stored)
        ),
    )


def settled(
    wanted: Container, stored: Container | None, facts: NamespaceFacts, keys: Keys, may: May
) -> Container:
    """Returns the container with the volumes that it mounts; a volume that nobody may write to is mounted read-only.

    `keys`: annotation and label keys, by the permission to set them.

    Raises:
        AlreadyExists: another container, or the namespace itself, already has a service of this name.
        InvalidArgument: a source or a volume does not exist, or nobody may send a field.
        PermissionDenied: the container runs something new with a folder of the node, rights over the node or over other
            tenants, config maps or secrets, and the caller lacks the permission.
    """
    for service, owner in facts.services.items():
        if owner is None:
            raise already_exists("service", service)
        raise AlreadyExists(
            f'service "{service}" already exists: it belongs to container "{owner}"',
            reason="SERVICE_ALREADY_EXISTS",
            metadata={"service": service, "container": owner},
        )
    wanted = _with_volumes(wanted, facts.volumes)
    if stored is not None:
        refuse_changed_selector(wanted, stored)
    if stored is None or runs_other_things(wanted, stored):
        # Checked first, because later errors reveal the existence and the type of config maps and secrets.
        refuse_use(wanted, may)
    found = Findings()
    _check_sources(wanted, stored, facts, found)
    _check_pull_secrets(wanted, stored, facts.secrets, found)
    _check_mounts(wanted, facts.volumes, found)
    _check_claims(wanted, stored, facts.volumes, found)
    found.raise_if_any()
    return admitted(wanted, stored, keys, may)


def _services(container: Container) -> frozenset[str]:
    return frozenset(port.service_name for port in container.ports if port.service_name)


def _sources(wanted: Container, kind: Kind) -> set[str]:
    """Returns the config maps or secrets of the platform that variables and pod volumes require."""
    items = (item for _, item in source_fields(wanted))
    return {
        item.source_name
        for item in items
        if item.value_from == kind and not item.optional and not item.external
    }


def _check_sources(
    wanted: Container, stored: Container | None, facts: NamespaceFacts, found: Findings
) -> None:
    """Notes config maps and secrets that are read but do not exist."""
    kinds: tuple[tuple[Kind, Collection[str]], ...] = (
        ("config_map", facts.config_maps),
        ("secret", facts.secrets),
    )
    for kind, there in kinds:
        missing = (_sources(wanted, kind) - _read_beside(stored, kind)).difference(there)
        if not missing:
            continue
        for field, item in source_fields(wanted):
            if item.value_from == kind and item.source_name in missing:
                found.add(f"{field}.source_name", "exists", configs.not_here(kind, item.source_name))


def _check_mounts(wanted: Container, volumes: Mapping[str, MountedVolume], found: Findings) -> None:
    """Notes mounts of volumes that do not exist."""
    own = wanted.spec.own_volumes
    for field, mount in mount_fields(wanted):
        if mount.volume not in own and mount.volume not in volumes:
            found.add(
                f"{field}.volume",
                "exists",
                f'"{mount.volume}" is neither a volume of the pods (empty_dirs, pod_volumes) nor of the namespace',
            )


def _new_claims(wanted: Container, stored: Container | None) -> set[str]:
    """Returns the names of existing claims that the container did not use before."""
    before = set() if stored is None else {each.claim_name for _, each in claim_fields(stored)}
    return {each.claim_name for _, each in claim_fields(wanted)} - before


def _check_claims(
    wanted: Container, stored: Container | None, volumes: Mapping[str, MountedVolume], found: Findings
) -> None:
    """Notes existing claims that the pods mount and that are volumes of the platform.

    They must be mounted as volumes of the namespace, because the platform counts the users of its volumes. Such a mount
    is a folder, so a claim that is used as a block device stays a pod volume and is not noted.
    """
    new = _new_claims(wanted, stored)
    here = {each.kubernetes_name: name for name, each in volumes.items() if each.kubernetes_name}
    mounted = {mount.volume for _, mount in mount_fields(wanted)}
    names = {
        f"container.pod_volumes[{i}].existing_claim": each.name
        for i, each in enumerate(wanted.spec.pod_volumes)
    }
    for field, claim in claim_fields(wanted):
        if claim.claim_name in new and claim.claim_name in here and names[field] in mounted:
            name = here[claim.claim_name]
            words = f'"{claim.claim_name}" is volume "{name}" of the namespace: mount it by that name'
            found.add(f"{field}.claim_name", "known", words)


def _pull_secrets(wanted: Container, stored: Container | None) -> set[str]:
    return set(wanted.spec.image_pull_secrets) - _read_beside(stored, "secret")


def _check_pull_secrets(
    wanted: Container, stored: Container | None, types: Mapping[str, str], found: Findings
) -> None:
    """Notes pull secrets that are missing, or that are not logins to a registry."""
    names = _pull_secrets(wanted, stored)
    for number, name in enumerate(wanted.spec.image_pull_secrets):
        field = f"container.image_pull_secrets[{number}]"
        if name in names and name not in types:
            found.add(field, "exists", configs.not_here("secret", name))
        elif name in names and types[name] not in PULL_SECRET_TYPES:
            found.add(
                field,
                "type",
                f'secret "{name}" is of type {types[name]}, not {" or ".join(PULL_SECRET_TYPES)}',
            )


def _read_beside(stored: Container | None, kind: Kind) -> set[str]:
    """Returns the objects that an imported container already reads; they may exist on the cluster only."""
    if stored is None or not stored.imported:
        return set()
    read = {item.source_name for _, item in source_fields(stored) if item.value_from == kind}
    return read | set(stored.spec.image_pull_secrets if kind == "secret" else ())


def _with_volumes(wanted: Container, found: Mapping[str, MountedVolume]) -> Container:
    mounted = {mount.volume for mount in wanted.all_mounts} - wanted.spec.own_volumes
    volumes = {name: volume for name, volume in found.items() if name in mounted}
    return msgspec.structs.replace(wanted, volumes=tuple(volumes[name] for name in sorted(volumes)))


def limits_of(quota: Quota) -> tuple[int, int, int] | None:
    """Returns the allowed containers, millicores and bytes (0: no limit); None for a namespace without a quota."""
    return None if quota == Quota() else (quota.containers, _millicores(quota.cpu), _bytes(quota.memory))


def refuse_exceeded_quota(namespace: Namespace, used: tuple[int, int, int], share: tuple[int, int]) -> None:
    """Raises ResourceExhausted if a new share exceeds the quota.

    `used`: containers, millicores and bytes. `share`: millicores and bytes.
    """
    allowed = limits_of(namespace.quota)
    if allowed is None:
        return
    units: Sequence[tuple[str, int, Callable[[int], str]]] = (
        ("containers", 1, str),
        ("cpu", share[0], lambda n: Quantity.from_millicores(n).text),
        ("memory", share[1], lambda n: Quantity.from_bytes(n).text),
    )
    for (name, asked, shown), limit, taken in zip(units, allowed, used, strict=True):
        if limit and asked and taken + asked > limit:
            raise ResourceExhausted(
                (
                    f'quota of namespace "{namespace.name}" exceeded: {name} {shown(taken)} used, '
                    f"{shown(asked)} requested, {shown(limit)} allowed"
                ),
                reason="QUOTA_EXCEEDED",
                metadata={
                    "resource": name,
                    "limit": shown(limit),
                    "used": shown(taken),
                    "asked": shown(asked),
                },
            )


def warn_of_quota(
    namespace: Namespace, share: tuple[int, int], collected: list[ObjectWarning] | None
) -> None:
    """Sets the warnings about a container that a quota counts as nothing, because it requests nothing."""
    if collected is None:
        return
    quota = namespace.quota
    unnamed = [
        name
        for name, limit, requested in (("cpu", quota.cpu, share[0]), ("memory", quota.memory, share[1]))
        if limit and not requested
    ]
    words = (
        'it requests no {0}, so the quota of namespace "{1}" counts none for it: set {0}_request or {0}_limit'
    )
    collected[:] = [
        ObjectWarning(
            "MISSING_REQUESTS", f"container.resources.{name}_request", words.format(name, namespace.name)
        )
        for name in unnamed
    ]


def _millicores(text: str) -> int:
    return Quantity.parse(text).millicores if text else 0


def _bytes(text: str) -> int:
    return Quantity.parse(text).whole if text else 0
