"""The guard over the objects of a container: the permission for each right, and the content allowed on a cluster.

A program that has rights over the node or over others is not held by its container, so most need the permission
`container.privileged`, which works only from a grant over all namespaces, because the node runs containers of all.
Folders of the node need `storage.host_path`. `guard` has the rules.

A container that runs with a right keeps it: a caller without the permission may scale, stop and delete it, but neither
change its programs nor take the right away. Pods keep a right until others take their place, which may be held, or
fail, for as long as that caller likes; until then a program that is run in them has it, and so have the config maps
and secrets that they read.

Present annotations of a Service stay, whichever caller changes the container, and so do guarded keys of labels and
annotations that the workload and the Services have by themselves: operators and meshes obey those, too.

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
    """The `May` of a change that only takes something away from the pods: nothing is asked, and nothing allowed."""
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
    """Returns whether a container may have a right that it would lose; by its notes, which know no later settings."""
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
            words = f"{each.words}, which its pods keep for a while where it is taken away"
            raise _refused(wanted, msgspec.structs.replace(each, words=words))


def refuse_power(container: Container, guarded: KeyPatterns, may: May) -> None:
    """Raises PermissionDenied where a container has a right that the caller may not give it.

    A caller that decides which program runs in it has that power. `guarded`: keys that give power to pods.
    """
    for each in _of_pods(container, Keys(KeyPatterns("*"), guarded)):
        if each.permission and _counts(each, container) and not may(each.permission):
            raise _refused(container, each)


def refuse_power_by_reading(container: Container, guarded: KeyPatterns, may: May, reads: str) -> None:
    """The same of a container that reads something of the caller's; `reads` names it."""
    try:
        refuse_power(container, guarded, may)
    except PermissionDenied as denied:
        raise PermissionDenied(
            f'{denied.message}; container "{container.name}" reads {reads}',
            reason=denied.reason,
            metadata={**denied.metadata, "container": container.name},
        ) from None


def gives_more_rights(wanted: Container, stored: Container, guarded: KeyPatterns) -> bool:
    """Returns whether a container would have rights that it has not, or `guarded` annotations or labels of its pods."""
    keys = Keys(KeyPatterns("*"), guarded)
    had = {(each.right, _program_of(each)) for each in _of_workload(stored, keys)}
    return any((each.right, _program_of(each)) not in had for each in _of_workload(wanted, keys))


def _program_of(found: GuardViolation) -> Steps:
    """Returns the place of the finding's program, because a right of one is no right of another; else nothing."""
    steps = found.steps
    place = steps[steps.index("template") + 2 :][:2] if "template" in steps else ()
    return place if place and place[0] in (CONTAINERS, INIT_CONTAINERS) else ()


def runs_other_things(wanted: Container, stored: Container) -> bool:
    """Whether the pods would run or see something else; their number, labels and rollout give no new power."""
    return _content(wanted) != _content(stored)


def _content(container: Container) -> tuple[object, ...]:
    spec = msgspec.structs.replace(
        container.spec, pod_labels={}, pod_annotations={}, workload=type(container.spec.workload)()
    )
    return (container.image, container.env, container.volume_mounts, container.volumes, spec)


def without_guarded(container: Container, keys: Keys) -> Container:
    """The container without keys of its objects that only few may set: an import leaves them there, as others'."""
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
    """Returns whether annotations of its Services give hosts that they did not give before."""
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
    """Raises Refused where its pods would run as this account of the cluster, and nobody was allowed that.

    The account `default` is every pod's, and one that the platform made for the namespace has no rights. One that is
    there already may have any.
    """
    rights, name = container.spec.rights, container.spec.service_account
    if name == "default" or rights is None or f"{ACCOUNT} {shown(name)}" in rights:
        return
    if not manifests.is_our_account(found, container.namespace_uid):
        words = (
            f'service account "{name}" is on the cluster and not the platform\'s, so its rights are unknown: '
            f"permission {PRIVILEGED} is needed, from a grant over all namespaces, to run pods as it"
        )
        raise Refused(words, code=403, status_reason=GUARDED)


def may_be_sent(container: Container) -> Admitted:
    """Returns the content that its objects may have. The account was compared with the cluster's before."""
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
    """Returns whether a finding is a guarded key of the object itself, which gives its pods no power."""
    return found.rule == OBEYED_KEYS and found.steps[0] == "metadata"


def _counts(found: GuardViolation, container: Container | None) -> bool:
    """Returns whether a right needs a permission: for an account only if somebody was allowed it before.

    An account that nobody was allowed is compared with the cluster's later (`refuse_account`).
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
        # A release that recorded no rights wrote it.
        known = tuple(each.right for each in _of_pods(stored, Keys(KeyPatterns("*"), KeyPatterns(""))))
    allowed = may is not only_takes_away and may(PRIVILEGED)
    rights = {each.right for each in found if each.rule != ACCOUNT or allowed or each.right in (known or ())}
    spec = msgspec.structs.replace(wanted.spec, rights=tuple(sorted(rights)))
    return msgspec.structs.replace(wanted, spec=spec)


def _refuse_keys(
    wanted: Container, stored: Container | None, of_object: Iterable[GuardViolation], keys: Keys, may: May
) -> None:
    """Refuses the first new label or annotation of its objects that the caller may not set."""
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
    """Returns the position of the first port of a Service, of which its annotations are."""
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
            # A create takes these for the pods.
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
    """The pods declare each port once, even if several Services stand in front of it."""
    for number, port in enumerate(container.ports):
        if port.host_port is not None and shown(port.host_port) == found.what[0]:
            return f"ports[{number}].host_port"
    return None
