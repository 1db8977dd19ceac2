"""A Deployment as a container.

What a container has no place for must stand at Kubernetes' default: the strategy, the rollout deadlines and
history. The Deployment's own selector is not kept: the platform selects pods by the container's uid, so what
it says is checked (it must select the template, or Kubernetes would refuse it) and left. Labels and
annotations of the Deployment and of its pod template become one set, which the platform puts on both; a key
with two values is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.apply import convert_container as one
from pilothouse_client.apply.convert_volume import PodVolume, pod_volumes
from pilothouse_client.apply.fields import Fields, Item, TextEntry, texts_of
from pilothouse_client.apply.manifest import (
    DNS_LABEL,
    DeclaredPort,
    Metadata,
    VolumeObject,
    Workload,
    metadata,
)

_INT64_MAXIMUM = 2**63 - 1


def convert_deployment(root: Fields, namespace: str) -> Workload:
    """The workload that the document describes; whether it is usable says its reporter."""
    container = pb.Container()
    with root.fields("metadata", required=True) as stated:
        own = metadata(stated, namespace)
        container.name = own.name
        if stated.present and not re.fullmatch(DNS_LABEL, own.name):
            message = f"expected at most 63 lower-case letters, digits and '-', found {own.name!r}"
            root.reporter.invalid(stated.place_of("name"), stated.path_of("name"), message)
    with root.fields("spec", required=True) as spec:
        replicas = spec.integer("replicas")
        if replicas is not None:
            container.replicas = replicas
        _rollout(spec)
        with spec.fields("template", required=True) as template:
            with template.fields("metadata") as stated:
                pods = metadata(stated, namespace)
                stated.only_default("name")
            pod_labels = texts_of(pods.labels)
            with template.fields("spec", required=True) as pod:
                declared, volumes = _pod(pod, container)
        with spec.fields("selector", required=True) as selector:
            _check_selector(selector, pod_labels)
    _unite(root, own, pods, container)
    _drop_platform_labels(root, own, pods, container)
    return Workload(root.place, root.reporter, container, declared, pod_labels, volumes)


def _rollout(spec: Fields) -> None:
    spec.only_default("minReadySeconds", "0")
    spec.only_default("revisionHistoryLimit", "10")
    spec.only_default("progressDeadlineSeconds", "600")
    spec.only_default("paused", "false")
    with spec.fields("strategy") as strategy:
        strategy.only_default("type", "RollingUpdate")
        with strategy.fields("rollingUpdate") as rolling:
            rolling.only_default("maxSurge", "25%")
            rolling.only_default("maxUnavailable", "25%")


def _check_selector(selector: Fields, labels: dict[str, str]) -> None:
    for key, entry in selector.text_map("matchLabels").items():
        if labels.get(key) != entry.text:
            message = f"expected a label of the pod template, found {entry.text!r}"
            selector.reporter.invalid(entry.place, entry.path, message)
    expressions = list(selector.items("matchExpressions"))
    for item in expressions:
        with item.fields() as expression:
            key = expression.text("key", required=True)
            operator = expression.choice("operator", "In", "NotIn", "Exists", "DoesNotExist")
            values = expression.texts("values")
        selects = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not selects.get(operator, False):
            item.invalid("expected to select the pod template's labels")
    if not selector.has("matchLabels") and not expressions and selector.present:
        selector.reporter.invalid(selector.place, selector.path, "expected labels, found none")


def _unite(root: Fields, own: Metadata, pods: Metadata, container: pb.Container) -> None:
    for of_deployment, of_pods, united in (
        (own.labels, pods.labels, container.labels),
        (own.annotations, pods.annotations, container.annotations),
    ):
        united.update(texts_of(of_deployment))
        for key, entry in of_pods.items():
            other: TextEntry | None = of_deployment.get(key)
            if other is not None and other.text != entry.text:
                message = f"cannot be represented: {entry.text!r} differs from {other.text!r} of {other.path}"
                root.reporter.unusable(entry.place, entry.path, message)
            united[key] = entry.text


def _drop_platform_labels(root: Fields, own: Metadata, pods: Metadata, container: pb.Container) -> None:
    """Labels that the platform sets itself on every object: another value for one has no place."""
    for key, value in (
        ("app.kubernetes.io/name", container.name),
        ("app.kubernetes.io/managed-by", "pilothouse"),
    ):
        for entry in [labels[key] for labels in (own.labels, pods.labels) if key in labels]:
            container.labels.pop(key, None)
            if entry.text != value:
                message = f"cannot be represented: the platform sets it to {value!r}"
                root.reporter.unsupported(entry.place, entry.path, message)


def _pod(pod: Fields, container: pb.Container) -> tuple[list[DeclaredPort], list[VolumeObject]]:
    """Fill in what the pod says; answers the ports it declares, and the volumes that it implies."""
    _pod_defaults(pod)
    account = pod.text("serviceAccountName")
    # The older name of the same field; serialisers write both.
    older = pod.text("serviceAccount")
    if older and account and older != account:
        message = f"expected {account!r} as in serviceAccountName, found {older!r}"
        pod.reporter.invalid(pod.place_of("serviceAccount"), pod.path_of("serviceAccount"), message)
    container.service_account = account or older
    container.image_pull_secrets.extend(_pull_secrets(pod))
    container.node_selector.update(texts_of(pod.text_map("nodeSelector")))
    container.tolerations.extend(_toleration(item) for item in pod.items("tolerations"))
    grace = pod.integer("terminationGracePeriodSeconds", maximum=_INT64_MAXIMUM)
    if grace is not None:
        container.termination_grace_seconds = grace
    rights = one.pod_security_context(pod)
    if rights is not None:
        container.pod_security_context.CopyFrom(rights)

    volumes = pod_volumes(pod)
    container.empty_dirs.extend(volumes.empty_dirs)
    for item in pod.items("initContainers"):
        container.init_containers.append(one.init_container(item, volumes.by_name))

    mains = list(pod.items("containers"))
    if not mains and not pod.present:
        return [], []
    if not mains:
        message = "expected a list with a container, found none"
        pod.reporter.invalid(pod.place_of("containers"), pod.path_of("containers"), message)
        return [], []
    for item in mains[1:]:
        with_name = item.fields().text("name")
        message = f"cannot be represented: a second container ({with_name or 'unnamed'}) beside the main one"
        pod.reporter.unusable(item.place, item.path, message)
    return _main_container(mains[0], container, volumes.by_name), volumes.implied


def _pull_secrets(pod: Fields) -> list[str]:
    names: list[str] = []
    for item in pod.items("imagePullSecrets"):
        with item.fields() as secret:
            name = secret.text("name", required=True)
        if name in names:
            item.invalid(f"expected each secret once, found {name!r} again")
        names.append(name)
    return names


def _pod_defaults(pod: Fields) -> None:
    """Fields without a place that manifests written by tools state at their default."""
    pod.only_default("restartPolicy", "Always")
    pod.only_default("dnsPolicy", "ClusterFirst")
    pod.only_default("schedulerName", "default-scheduler")
    pod.only_default("automountServiceAccountToken", "true")
    pod.only_default("enableServiceLinks", "true")
    pod.only_default("preemptionPolicy", "PreemptLowerPriority")
    for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "setHostnameAsFQDN"):
        pod.only_default(name, "false")
    pod.only_default("hostUsers", "true")


def _main_container(
    item: Item, container: pb.Container, volumes: Mapping[str, PodVolume | None]
) -> list[DeclaredPort]:
    with item.fields() as main:
        container.pod_container_name = main.text("name", required=True)
        one.command_and_image(main, container)
        container.env.extend(one.environment(main))
        container.volume_mounts.extend(one.mounts(main, volumes))
        resources = one.resources(main)
        if resources is not None:
            container.resources.CopyFrom(resources)
        probes = one.probes(main)
        if probes is not None:
            container.probes.CopyFrom(probes)
        rights = one.security_context(main)
        if rights is not None:
            container.security_context.CopyFrom(rights)
        return _ports(main)


def _ports(main: Fields) -> list[DeclaredPort]:
    declared: list[DeclaredPort] = []
    for item in main.items("ports"):
        with item.fields() as port:
            number = port.integer("containerPort", minimum=1, maximum=65535, required=True)
            protocol = port_protocol(port)
            name = port.text("name")
            host_port = port.integer("hostPort", maximum=65535) or 0
        if number is None or protocol is None:
            continue
        if any((each.number, each.protocol) == (number, protocol) for each in declared):
            item.unsupported(f"cannot be represented: port {number} is declared twice")
        elif name and any(each.name == name for each in declared):
            item.invalid(f"expected each port name once, found {name!r} again")
        else:
            declared.append(DeclaredPort(number, protocol, name, host_port))
    return declared


def port_protocol(port: Fields) -> pb.Protocol.ValueType | None:
    """The protocol of a port, TCP by default; None, and a problem, if the platform has no place for it."""
    text = port.choice("protocol", "TCP", "UDP", "SCTP") or "TCP"
    if text == "SCTP":
        port.reporter.unsupported(
            port.place_of("protocol"), port.path_of("protocol"), "cannot be represented: SCTP"
        )
        return None
    return pb.PROTOCOL_UDP if text == "UDP" else pb.PROTOCOL_TCP


def _toleration(item: Item) -> pb.Toleration:
    with item.fields() as fields:
        return pb.Toleration(
            key=fields.text("key"),
            operator=fields.choice("operator", "Equal", "Exists"),
            value=fields.text("value"),
            effect=fields.choice("effect", "NoSchedule", "PreferNoSchedule", "NoExecute"),
            toleration_seconds=fields.integer("tolerationSeconds", maximum=_INT64_MAXIMUM),
        )
