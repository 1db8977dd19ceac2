"""Guards a container's objects: permissions for rights, and allowed content.

A program with rights over the node or over other tenants is not confined to its container. So most such rights need
the permission `container.privileged`, which counts only from a grant over all namespaces, because a node runs
containers of all namespaces. Folders of the node need `storage.host_path`. The package `guard` has the rules.

A container that runs with a right keeps it: a caller without the permission may scale, stop and delete it, but neither
change its programs nor take the right away. Pods keep a right until new pods replace them, and the caller could pause
the rollout or make it fail for as long as they like. Until then, a program that is run in the pods has the right, and
a changed config map or secret that they read can use it.

Annotations that a Service already has stay, whichever caller changes the container. So do guarded label and annotation
keys on the workload and the Services themselves, which operators and meshes also obey.

The rights that a container was admitted with are stored with it, and the reconciler writes no others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

import msgspec

from pilothouse_manifests.paths import field_of
from pilothouse_manifests.table import (
    CONTAINERS,
    INIT_CONTAINER,
    INIT_CONTAINERS,
    MAIN_CONTAINER,
    POD,
    SIDECAR,
    VOLUMES,
)
from pilothouse_server.authorization.access import May
from pilothouse_server.containers import manifests
from pilothouse_server.containers.job_status import RUN
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.owned_services import NO_SERVICE
from pilothouse_server.containers.workloads import workload_type
from pilothouse_server.errors import PermissionDenied, PilothouseError, invalid, over_all_namespaces_needed
from pilothouse_server.guard import hosts
from pilothouse_server.guard.annotation_keys import DNS_NAMES
from pilothouse_server.guard.checks import ACCOUNT, OBEYED_KEYS, shown
from pilothouse_server.guard.inspection import violations
from pilothouse_server.guard.model import (
    HOST,
    HOST_PATH,
    PRIVILEGED,
    UNCOMPARED,
    UNGUARDED,
    Admitted,
    CarriedFacts,
    GuardViolation,
    Keys,
    Steps,
)
from pilothouse_server.kubernetes.errors import GUARDED, Refused
from pilothouse_server.kubernetes.objects import KubernetesObject
from pilothouse_server.kubernetes.ownership import CONTAINER_UID, NAMESPACE, NAMESPACE_UID
from pilothouse_server.network.manifests import SERVICE_UID
from pilothouse_server.values.key_patterns import KeyPatterns

_OURS: Final = frozenset({
    NAMESPACE, NAMESPACE_UID, CONTAINER_UID, SERVICE_UID, manifests.RESTARTED_AT, manifests.REPLICAS_SET,
    manifests.REPLACED_AT, manifests.NO_NODE,
    manifests.RENDERED, RUN,
})  # fmt: skip


def only_takes_away(_permission: str) -> bool:
    """Allows everything: the `May` of a change that only removes something from pods.

    It checks no permission, and `_with_rights` does not count it as one.
    """
    return True


def admitted(wanted: Container, stored: Container | None, keys: Keys, may: May) -> Container:
    """Returns the container with the rights that it is admitted with.

    Raises:
        PermissionDenied: the first right that the caller may not give or take away, with its field.
        InvalidArgument: a part that is never sent, with its field.
    """
    everything = _of_workload(wanted, keys)
    found = [each for each in everything if not _is_key_of_object(each)]
    if found or (stored is not None and _may_have_rights(stored, wanted)):
        _refuse_rights(wanted, stored, found, keys, may)
    _refuse_keys(wanted, stored, [each for each in everything if _is_key_of_object(each)], keys, may)
    return _with_rights(wanted, stored, found, may)


def _may_have_rights(stored: Container, wanted: Container) -> bool:
    """Returns whether the stored container may have a right that it would lose.

    Its stored rights do not contain keys that a later setting guards, so changed pod labels and annotations count, too.
    """
    of_pods = [(each.spec.pod_labels, each.spec.pod_annotations) for each in (stored, wanted)]
    return stored.spec.rights != () or of_pods[0] != of_pods[1]


def _refuse_rights(
    wanted: Container, stored: Container | None, found: Iterable[GuardViolation], keys: Keys, may: May
) -> None:
    before = [] if stored is None else _of_pods(stored, keys)
    had = {each.right for each in before}
    kept = set() if stored is None or runs_other_things(wanted, stored) else had
    for each in found:
        if not each.permission:
            if each.right not in had:
                raise _refused(wanted, each)
        elif each.right not in kept and _counts(each, stored) and not may(each.permission):
            raise _refused(wanted, each)
    has = {each.right for each in found}
    for each in before:
        if each.right not in has and _counts(each, stored) and each.permission and not may(each.permission):
            words = f"{each.words}, which its pods keep until they are replaced"
            raise _refused(wanted, msgspec.structs.replace(each, words=words))


def refuse_power(container: Container, guarded: KeyPatterns, may: May) -> None:
    """Raises PermissionDenied if a container has a right that the caller may not give.

    A caller that decides which program runs in the container has its rights. `guarded`: keys that give rights to pods.
    """
    for each in _of_pods(container, Keys(KeyPatterns("*"), guarded)):
        if each.permission and _counts(each, container) and not may(each.permission):
            raise _refused(container, each)


def refuse_power_by_reading(container: Container, guarded: KeyPatterns, may: May, reads: str) -> None:
    """Raises as `refuse_power` does, for a container that reads data from the caller; `reads` names the data."""
    try:
        refuse_power(container, guarded, may)
    except PermissionDenied as denied:
        raise PermissionDenied(
            f'{denied.message}; container "{container.name}" reads {reads}',
            reason=denied.reason,
            metadata={**denied.metadata, "container": container.name},
        ) from None


def gives_more_rights(wanted: Container, stored: Container, guarded: KeyPatterns) -> bool:
    """Returns whether a container would gain rights, or `guarded` annotations or labels of its pods."""
    keys = Keys(KeyPatterns("*"), guarded)
    had = {(each.right, _program_of(each)) for each in _of_workload(stored, keys)}
    return any((each.right, _program_of(each)) not in had for each in _of_workload(wanted, keys))


def _program_of(found: GuardViolation) -> Steps:
    """Returns the position of the program that a finding is in, or an empty tuple; each program has its own rights."""
    steps = found.steps
    place = steps[steps.index("template") + 2 :][:2] if "template" in steps else ()
    return place if place and place[0] in (CONTAINERS, INIT_CONTAINERS) else ()


def runs_other_things(wanted: Container, stored: Container) -> bool:
    """Returns whether the pods would run or read something else; their number, labels and rollout do not count."""
    return _content(wanted) != _content(stored)


def _content(container: Container) -> tuple[object, ...]:
    spec = msgspec.structs.replace(
        container.spec, pod_labels={}, pod_annotations={}, workload=type(container.spec.workload)()
    )
    return (container.image, container.env, container.volume_mounts, container.volumes, spec)


def without_guarded(container: Container, keys: Keys) -> Container:
    """Returns the container without guarded keys of its objects.

    These are the keys that only privileged callers may set. An import leaves these keys on the cluster as fields of
    other managers.
    """
    ports = tuple(
        msgspec.structs.replace(
            port,
            service_annotations={
                key: text for key, text in port.service_annotations.items() if key in keys.free
            },
        )
        for port in container.ports
    )
    labels, annotations = (
        {key: text for key, text in values.items() if key not in keys.guarded}
        for values in (container.labels, container.annotations)
    )
    return msgspec.structs.replace(container, ports=ports, labels=labels, annotations=annotations)


def names_new_hosts(wanted: Container, stored: Container | None) -> bool:
    """Returns whether annotations of its Services name hosts that they did not name before."""
    before = set() if stored is None else _dns_names(stored)
    return not _dns_names(wanted) <= before


def refuse_hosts(wanted: Container, stored: Container | None, allowed_hosts: Collection[str]) -> None:
    """Raises FailedPrecondition HOST_NOT_ALLOWED for the first new host that the namespace may not use."""
    facts = CarriedFacts(allowed_hosts=allowed_hosts)
    before = set()
    if stored is not None:
        before = {(name, each.right) for name, each in _of_services(stored, UNGUARDED, facts)}
    for name, each in _of_services(wanted, UNGUARDED, facts):
        if each.rule == HOST and (name, each.right) not in before:
            raise hosts.refusal(each, f"container.ports[{_port_of(wanted, name)}].service_annotations")


def _dns_names(container: Container) -> set[tuple[str, str, str]]:
    return {
        (port.service_name, key, text)
        for port in container.ports
        for key, text in port.service_annotations.items()
        if key in DNS_NAMES
    }


def refuse_account(container: Container, found: KubernetesObject) -> None:
    """Raises Refused if no caller was allowed to run pods as this service account.

    Every pod may use the account `default`, and an account that the platform created for the namespace has no rights.
    An account that others created may have any rights.
    """
    rights, name = container.spec.rights, container.spec.service_account
    if name == "default" or rights is None or f"{ACCOUNT} {shown(name)}" in rights:
        return
    if not manifests.is_our_account(found, container.namespace_uid):
        words = (
            f'service account "{name}" exists on the cluster but does not belong to the platform, so its rights are '
            f"unknown: permission {PRIVILEGED} is needed, from a grant over all namespaces, to run pods as it"
        )
        raise Refused(words, code=403, status_reason=GUARDED)


def may_be_sent(container: Container) -> Admitted:
    """Returns the content that the container's objects may have. `refuse_account` must have checked its account."""
    rights = container.spec.rights
    if rights is not None:
        rights = (*rights, f"{ACCOUNT} {shown(container.spec.service_account)}")
    return Admitted(container.kubernetes_namespace, _OURS, None if rights is None else frozenset(rights))


def _of_workload(container: Container, keys: Keys) -> list[GuardViolation]:
    workload = manifests.workload(container)
    return violations(workload, namespace=container.kubernetes_namespace, keys=keys, ours=_OURS)


def _of_pods(container: Container, keys: Keys) -> list[GuardViolation]:
    return [each for each in _of_workload(container, keys) if not _is_key_of_object(each)]


def _is_key_of_object(found: GuardViolation) -> bool:
    """Returns whether a finding is a guarded key of the object itself, which gives its pods no rights."""
    return found.rule == OBEYED_KEYS and found.steps[0] == "metadata"


def _counts(found: GuardViolation, container: Container | None) -> bool:
    """Returns whether a right needs a permission now.

    A service account does only if a caller was allowed it before. Any other service account is compared with the
    cluster's later (`refuse_account`).
    """
    if found.rule != ACCOUNT:
        return True
    return container is not None and found.right in (container.spec.rights or ())


def _with_rights(
    wanted: Container, stored: Container | None, found: Iterable[GuardViolation], may: May
) -> Container:
    if stored is not None and wanted == stored:
        return wanted
    known = None if stored is None else stored.spec.rights
    if stored is not None and known is None:
        # The container was written by a release that stored no rights.
        known = tuple(each.right for each in _of_pods(stored, Keys(KeyPatterns("*"), KeyPatterns(""))))
    allowed = may is not only_takes_away and may(PRIVILEGED)
    rights = {each.right for each in found if each.rule != ACCOUNT or allowed or each.right in (known or ())}
    spec = msgspec.structs.replace(wanted.spec, rights=tuple(sorted(rights)))
    return msgspec.structs.replace(wanted, spec=spec)


def _refuse_keys(
    wanted: Container, stored: Container | None, of_object: Iterable[GuardViolation], keys: Keys, may: May
) -> None:
    """Raises the error for the first new label or annotation of its objects that the caller may not set."""
    found = [*(("", each) for each in of_object), *_of_services(wanted, keys)]
    if not found:
        return
    before: set[tuple[str, str]] = set()
    if stored is not None:
        before |= {("", each.right) for each in _of_workload(stored, keys) if _is_key_of_object(each)}
        before |= {(name, each.right) for name, each in _of_services(stored, keys)}
    for name, each in found:
        if each.permission and ((name, each.right) in before or may(each.permission)):
            continue
        field = f"container.{each.steps[1]}"
        if name and each.steps[1] == "annotations":
            field = f"container.ports[{_port_of(wanted, name)}].service_annotations"
        raise _denied(wanted, each, field)


def _of_services(
    container: Container, keys: Keys, facts: CarriedFacts = UNCOMPARED
) -> Iterator[tuple[str, GuardViolation]]:
    home = container.kubernetes_namespace
    for service in manifests.services(container):
        name = service["metadata"]["name"]
        for each in violations(service, namespace=home, keys=keys, ours=_OURS, facts=facts):
            yield name, each


def _port_of(container: Container, service: str) -> int:
    """Returns the position of a Service's first port, which has the annotations of the Service."""
    return next(
        number
        for number, port in enumerate(container.ports)
        if port.service_type != NO_SERVICE and (port.service_name or container.name) == service
    )


def _refused(container: Container, found: GuardViolation) -> PilothouseError:
    if found.permission == HOST_PATH:
        volume = next((each.name for each in container.volumes if shown(each.host_path) == found.what[0]), "")
        words = f'volume "{volume}" is a folder of the node'
        return over_all_namespaces_needed(HOST_PATH, container.namespace, words, volume=volume)
    return _denied(container, found, _field(container, found))


def _denied(container: Container, found: GuardViolation, field: str) -> PilothouseError:
    if not found.permission:
        return invalid(field, f"{found.path} {found.words}")
    why = f"{field} {found.words}"
    return over_all_namespaces_needed(found.permission, container.namespace, why, field=field)


def _field(container: Container, found: GuardViolation) -> str:
    """Returns the field of the container that a finding comes from; else its path in the object."""
    template = workload_type(container).template
    of_pods, steps = found.steps[: len(template)] == template, found.steps[len(template) :]
    named: str | int | None = None
    if of_pods and steps[0] == "metadata":
        named = f"pod_{steps[1]}"
        if getattr(container.spec, named) == getattr(container, str(steps[1])):
            # A create copies the container's labels and annotations to its pods.
            named = str(steps[1])
    elif of_pods and len(steps) > 1:
        named = _field_of_pod(container, found, steps[1:])
    return found.path if named is None else f"container.{named}"


def _field_of_pod(container: Container, found: GuardViolation, steps: Steps) -> str | int | None:
    if steps[0] == INIT_CONTAINERS and len(steps) > 2:
        inner = field_of(INIT_CONTAINER.entries, steps[2:])
        return None if inner is None else f"init_containers[{steps[1]}].{inner}"
    if steps[0] == CONTAINERS and len(steps) > 2 and (number := int(steps[1])) > 0:
        inner = field_of(SIDECAR.entries, steps[2:])
        return None if inner is None else f"sidecars[{number - 1}].{inner}"
    if steps[0] == CONTAINERS and len(steps) > 2:
        if steps[2] == "ports":
            return _field_of_port(container, found)
        return field_of(MAIN_CONTAINER.entries, steps[2:])
    return None if steps[0] == VOLUMES else field_of(POD.entries, steps)


def _field_of_port(container: Container, found: GuardViolation) -> str | None:
    """Returns the field of a host port. Pods declare each port once, even if several Services expose it."""
    for number, port in enumerate(container.ports):
        if port.host_port is not None and shown(port.host_port) == found.what[0]:
            return f"ports[{number}].host_port"
    return None
