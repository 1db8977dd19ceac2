"""From a container to the Kubernetes objects that run it: pure functions, the fields of our own and no others.

A manifest is what server-side apply takes ownership of. What is left out stays with whoever owns it: `replicas` is
never in it, because the scale subresource sets it and an autoscaler may own it; defaults of the API are not written.

Identity: every object carries our labels, and the pods are selected by the container's uid alone. The selector
is immutable, so nothing that a caller can change may be in it; and a container made again under the same name does not
adopt its predecessor's pods.

An imported Deployment is the exception. Its selector cannot be changed and its pods shall not restart, so it keeps its
selector and the labels of its pods (`taken_over`), and only the objects' own metadata carry the container's uid. Its
pods are found by their owners. The ports that it declares on its pods stay apart from those of its Services.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from pilothouse_manifests.services import type_fields
from pilothouse_manifests.table import DEPLOYMENT, DEPLOYMENT_SETTINGS, RECREATE, SERVICE_PORT, key_of
from pilothouse_manifests.writing import writer
from pilothouse_server.containers.model import Container, Port, TakenOver, TakenOverService
from pilothouse_server.containers.pod_manifests import pod_spec
from pilothouse_server.kubernetes.objects import Deployment, KubernetesObject, Manifest, Service
from pilothouse_server.kubernetes.ownership import (
    CONTAINER_UID,
    DOMAIN,
    MANAGED_BY,
    MANAGER,
    NAME,
    NAMESPACE,
    NAMESPACE_UID,
    label_value,
    without_empty,
)

RESTARTED_AT = f"{DOMAIN}/restarted-at"
# The replicas that we set through the scale subresource last: as long as it equals what is wanted, we leave the
# number to others.
REPLICAS_SET = f"{DOMAIN}/replicas-set"
# Deployments, Services, replica sets and pods of containers; those of imported Deployments' pods do not say so.
OWNED_SELECTOR = CONTAINER_UID
FOREIGN_SELECTOR = f"!{CONTAINER_UID}"

NO_SERVICE = "None"
PAUSED = key_of(DEPLOYMENT, "hold_rollout")


def pod_labels(container: Container) -> dict[str, str]:
    """The caller's labels and ours: what we select by wins, and what says who made the pods is the caller's to say."""
    return {
        NAME: label_value(container.name),
        MANAGED_BY: MANAGER,
        **container.labels,
        NAMESPACE: label_value(container.namespace),
        CONTAINER_UID: container.uid,
    }


def object_labels(container: Container) -> dict[str, str]:
    """What the Deployment and the Services of a container carry: they are managed by us, whoever made the pods."""
    home = {NAMESPACE_UID: container.namespace_uid}
    if container.spec.taken_over is None:
        return {**pod_labels(container), MANAGED_BY: MANAGER, **home}
    # Others find these objects by labels of their own, `managed-by` among them.
    return {**container.labels, CONTAINER_UID: container.uid, **home}


def deployment(
    container: Container, *, replicas_set: int | None = None, paused: bool | None = None
) -> Manifest:
    """The Deployment of a container, without `replicas`.

    `replicas_set`: noted as the number we scaled to last. `paused` (default: as the container holds its rollout) is
    for making a Deployment that must not start a pod before it is scaled.
    """
    taken_over = container.spec.taken_over
    annotations = dict(container.annotations)
    template_labels = pod_labels(container) if taken_over is None else taken_over.pod_labels
    template_annotations = dict(annotations if taken_over is None else taken_over.pod_annotations)
    if container.spec.restarted_at is not None:
        template_annotations[RESTARTED_AT] = timestamp(container.spec.restarted_at)
    if replicas_set is not None:
        annotations[REPLICAS_SET] = str(replicas_set)
    spec: Manifest = {
        "selector": _selector(container, taken_over),
        "template": {
            "metadata": without_empty({"labels": template_labels, "annotations": template_annotations}),
            "spec": pod_spec(container),
        },
    }
    spec |= _write_settings(container.spec.workload)
    # Said also where it is false: a field that we leave out is others' to set.
    spec[PAUSED] = container.hold_rollout if paused is None else paused
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": without_empty(
            {
                "name": container.kubernetes_name,
                "namespace": container.kubernetes_namespace,
                "labels": object_labels(container),
                "annotations": annotations,
            }
        ),
        "spec": spec,
    }


_write_settings = writer(DEPLOYMENT_SETTINGS, place=lambda name: name.removeprefix("deployment."))


def recreates(manifest: Manifest) -> bool:
    """Returns whether a Deployment ends its old pods first; it may have no settings of a rolling update then."""
    return bool(manifest["spec"].get("strategy", {}).get("type") == RECREATE)


def services(container: Container) -> list[Manifest]:
    """One Service per `service_name`, in the order of the ports; ports without a Service make none."""
    groups: dict[str, list[Port]] = {}
    for port in container.ports:
        if port.service_type != NO_SERVICE:
            groups.setdefault(port.service_name or container.name, []).append(port)
    return [_service(container, name, ports) for name, ports in groups.items()]


def _service(container: Container, name: str, ports: list[Port]) -> Manifest:
    found = _taken_over_service(container, name)
    spec: Manifest = {
        "selector": _pods_of(container) if found is None else found.selector,
        "ports": [_write_service_port(_service_port(port, found)) for port in ports],
        **type_fields(ports[0].service_type),
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": without_empty(
            {
                "name": name,
                "namespace": container.kubernetes_namespace,
                "labels": object_labels(container)
                if found is None
                else {CONTAINER_UID: container.uid, NAMESPACE_UID: container.namespace_uid},
                "annotations": dict(ports[0].service_annotations),
            }
        ),
        "spec": spec,
    }


def is_ours(container: Container, found: Deployment | Service) -> bool:
    """Returns whether a Deployment or a Service was made for the container.

    Others may take our label away. What a Deployment selects cannot be changed, and no other selects pods of this uid.
    """
    own = {CONTAINER_UID: container.uid}
    return found.metadata.label(CONTAINER_UID) == container.uid or found.selected == own


def _selector(container: Container, taken_over: TakenOver | None) -> Manifest:
    if taken_over is None:
        return {"matchLabels": {CONTAINER_UID: container.uid}}
    return dict(taken_over.selector)


def _pods_of(container: Container) -> dict[str, str]:
    """Labels by which a Service finds the pods."""
    taken_over = container.spec.taken_over
    if taken_over is None:
        return {CONTAINER_UID: container.uid}
    return dict(taken_over.selector.get("matchLabels") or taken_over.pod_labels)


def _taken_over_service(container: Container, name: str) -> TakenOverService | None:
    taken_over = container.spec.taken_over
    found = () if taken_over is None else taken_over.services
    return next((service for service in found if service.name == name), None)


class ServicePort(msgspec.Struct, gc=False):
    """A port as its Service has it. `target_name`, of an imported one: the name of the pods' port."""

    name: str
    protocol: str
    service_port: int
    container_port: int
    target_name: str | None
    node_port: int | None
    app_protocol: str


_write_service_port = writer(SERVICE_PORT)


def _service_port(port: Port, found: TakenOverService | None) -> ServicePort:
    service_port = port.service_port or port.container_port
    # Several ports must be named, and the name is what app protocols and probes refer to; a single one may be.
    name = port.name or ("" if found else f"{port.protocol.lower()}-{service_port}")
    target_name = found.target_ports.get(f"{port.protocol}/{service_port}") if found else None
    return ServicePort(
        name, port.protocol, service_port, port.container_port, target_name, port.node_port, port.app_protocol
    )


def service_account(container: Container) -> Manifest | None:
    """The ServiceAccount that the container names; it belongs to the namespace, so it carries no container's uid."""
    name = container.spec.service_account
    if not name:
        return None
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": name,
            "namespace": container.kubernetes_namespace,
            "labels": {
                MANAGED_BY: MANAGER,
                NAMESPACE: label_value(container.namespace),
                NAMESPACE_UID: container.namespace_uid,
            },
        },
    }


def is_our_account(found: KubernetesObject, namespace_uid: str) -> bool:
    """Returns whether a ServiceAccount was made by the platform for a namespace, whose uid it carries."""
    metadata = found.metadata
    return metadata.label(MANAGED_BY) == MANAGER and metadata.label(NAMESPACE_UID) == namespace_uid


def timestamp(value: datetime) -> str:
    """RFC 3339 in UTC with microseconds, so that two restarts within one second differ."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
