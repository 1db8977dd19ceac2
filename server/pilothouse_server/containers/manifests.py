"""Renders a container as the Kubernetes objects that run it, with pure functions.

A manifest contains only the fields that server-side apply takes ownership of. Other fields stay with their owners.
`workload` leaves out `replicas`, because the scale subresource sets it and an autoscaler may own it. Defaults of the
API are not written.

Identity: every object has the platform's labels, and pods are selected by the container's uid, together with selector
labels that the container was created with. The selector is immutable, so it contains nothing that a caller can change.
A container that is created again under the same name has another uid, so it does not adopt its predecessor's pods.

An imported workload is the exception. Its selector cannot be changed and its pods must not restart, so it keeps its
selector and the labels of its pods (`taken_over`), and only the objects' own metadata has the container's uid. Its
pods are found by their owners. The ports that its pods declare are kept apart from those of its Services.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

import msgspec

from pilothouse_manifests import extra_fields
from pilothouse_manifests.cron_jobs import JOB_TEMPLATE_KEY
from pilothouse_manifests.jobs import NEVER, RESTART_POLICY, SUSPEND
from pilothouse_manifests.table import RECREATE
from pilothouse_server.containers.job_status import RUN, run_name
from pilothouse_server.containers.model import Container, TakenOver
from pilothouse_server.containers.owned_services import owned_services
from pilothouse_server.containers.pod_manifests import pod_spec
from pilothouse_server.containers.workload_settings import CronJobSettings, JobSettings
from pilothouse_server.containers.workloads import has_schedule, workload_type
from pilothouse_server.kubernetes import field_paths
from pilothouse_server.kubernetes.client import FIELD_MANAGER
from pilothouse_server.kubernetes.objects import JOBS, KubernetesObject, Manifest, Service, WorkloadObject
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
from pilothouse_server.network.manifests import SERVICE_UID, object_of

RESTARTED_AT = f"{DOMAIN}/restarted-at"
# The number of replicas that the platform last set through the scale subresource. While it equals the desired number,
# the platform leaves the replicas to others.
REPLICAS_SET = f"{DOMAIN}/replicas-set"
# The generation whose immutable settings caused the last replacement of the object.
REPLACED_AT = f"{DOMAIN}/replaced-generation"
# A digest of the immutable parts of a Job: while it is the same, the complete Job may be applied again.
RENDERED = f"{DOMAIN}/rendered"
# A label that no node has: a DaemonSet whose template selects it is stopped.
NO_NODE = f"{DOMAIN}/no-node"
# The annotation of a CronJob's Job that the schedule did not start.
INSTANTIATED = "cronjob.kubernetes.io/instantiate"
# Fields of a Job that can change while it runs.
_CHANGEABLE = frozenset(
    {
        *("activeDeadlineSeconds", "backoffLimit", "maxFailedIndexes", "parallelism", "suspend"),
        "ttlSecondsAfterFinished",
    }
)
# Selects workloads, Services, replica sets and pods of containers. Pods of imported workloads do not have the label.
OWNED_SELECTOR = CONTAINER_UID
FOREIGN_SELECTOR = f"!{CONTAINER_UID}"


def pod_labels(container: Container) -> dict[str, str]:
    """Returns the labels of the pods: the caller's and the platform's.

    The labels that the platform selects by override the caller's, but the caller may set `managed-by`. Pods of an
    imported workload get no label from the platform, because it would restart them. A CronJob's pods do not restart,
    so its next pods get the label by which they are found.
    """
    taken_over = container.spec.taken_over
    if taken_over is not None:
        ours = {CONTAINER_UID: container.uid} if has_schedule(container) else {}
        theirs = {key: text for key, text in taken_over.pod_labels.items() if is_platforms(key)}
        return container.spec.pod_labels | theirs | ours
    return _labels(container, container.spec.pod_labels)


def pod_annotations(container: Container) -> dict[str, str]:
    """Returns the caller's annotations, and the platform's that an imported workload already had."""
    taken_over = container.spec.taken_over
    brought = {} if taken_over is None else taken_over.pod_annotations
    return container.spec.pod_annotations | {key: text for key, text in brought.items() if is_platforms(key)}


def is_platforms(key: str) -> bool:
    """Returns whether only the platform sets a key of labels or annotations."""
    return key.startswith(f"{DOMAIN}/")


def _labels(container: Container, labels: dict[str, str]) -> dict[str, str]:
    return {
        NAME: label_value(container.name),
        MANAGED_BY: MANAGER,
        **labels,
        NAMESPACE: label_value(container.namespace),
        CONTAINER_UID: container.uid,
    }


def object_labels(container: Container) -> dict[str, str]:
    """Returns the labels of a container's workload and Services; imported ones get labels of the platform, too."""
    return _labels_of_object(container, container.labels)


def _labels_of_object(container: Container, labels: dict[str, str]) -> dict[str, str]:
    home = {NAMESPACE_UID: container.namespace_uid}
    if container.spec.taken_over is None:
        return {**_labels(container, labels), MANAGED_BY: MANAGER, **home}
    # Other tools find imported objects by their own labels, including `managed-by`.
    return {**labels, CONTAINER_UID: container.uid, **home}


def workload(container: Container, *, replicas_set: int | None = None, held: bool | None = None) -> Manifest:
    """Returns the workload of a container, without `replicas`.

    `replicas_set`: the number of replicas last set, which an annotation records. `held`: whether the rollout is held
    (default: the container's `hold_rollout`); if True, a new Deployment starts no pod before it is scaled.
    """
    type_ = workload_type(container)
    taken_over = container.spec.taken_over
    annotations = dict(container.annotations)
    template_annotations = pod_annotations(container)
    if container.spec.restarted_at is not None:
        template_annotations[RESTARTED_AT] = timestamp(container.spec.restarted_at)
    if replicas_set is not None and type_.scales:
        annotations[REPLICAS_SET] = str(replicas_set)
    if container.spec.replaced_generation:
        annotations[REPLACED_AT] = str(container.spec.replaced_generation)
    spec: Manifest = {
        "selector": _selector(container, taken_over),
        "template": {
            "metadata": without_empty({"labels": pod_labels(container), "annotations": template_annotations}),
            "spec": pod_spec(container),
        },
    }
    if type_.per_node and container.desired_state != "running":
        spec["template"]["spec"].setdefault("nodeSelector", {})[NO_NODE] = "true"
    spec |= type_.write(container, container.hold_rollout if held is None else held)
    manifest: Manifest = {
        "apiVersion": type_.resource.api_version,
        "kind": type_.kind,
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
    if type_.scheduled:
        _to_jobs(container, manifest)
    for path, text in container.spec.extra_fields.items():
        extra_fields.write(manifest, extra_fields.parse(path), msgspec.json.decode(text))
    return _of_run(container, manifest) if type_.runs else manifest


def replaces_pods(before: Container, after: Container) -> bool:
    """Returns whether a change replaces pods that should run: the template differs, and the rollout is not held."""
    if not workload_type(after).rolls_out or after.hold_rollout or not after.wanted_replicas:
        return False
    templates = [workload(each)["spec"]["template"] for each in (before, after)]
    return bool(templates[0] != templates[1])


def _to_jobs(container: Container, manifest: Manifest) -> None:
    """Moves the pod template into the Job template, and adds the fields of each Job."""
    settings = container.spec.workload
    assert isinstance(settings, CronJobSettings)
    spec = manifest["spec"]
    del spec["selector"]
    template = spec.pop("template")
    template["spec"][RESTART_POLICY] = settings.job.restart_policy or NEVER
    jobs = spec.setdefault(JOB_TEMPLATE_KEY, {})
    jobs.setdefault("metadata", {})["labels"] = _labels_of_object(container, settings.job_labels)
    jobs.setdefault("spec", {})["template"] = template
    manifest["metadata"].setdefault("annotations", {})[RUN] = str(container.spec.run)


def job_on_request(container: Container, number: int) -> Manifest:
    """Returns the Job of a CronJob's requested run, as `kubectl create job --from`.

    It is suspended, so that it can neither end nor be deleted for its age before the CronJob records its creation.
    """
    template = workload(container)["spec"][JOB_TEMPLATE_KEY]
    annotations = template["metadata"].get("annotations", {})
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {
            "name": run_name(container, number),
            "namespace": container.kubernetes_namespace,
            "labels": template["metadata"]["labels"],
            "annotations": {**annotations, INSTANTIATED: "manual", RUN: str(number)},
        },
        "spec": {**template["spec"], SUSPEND: True},
    }


def _of_run(container: Container, manifest: Manifest) -> Manifest:
    """Returns the manifest of a Job; the API adds the selector, and its own labels to those of the pods."""
    settings = container.spec.workload
    assert isinstance(settings, JobSettings)
    spec, template = manifest["spec"], manifest["spec"]["template"]
    del spec["selector"]
    template["spec"][RESTART_POLICY] = settings.restart_policy or NEVER
    fixed = {key: value for key, value in spec.items() if key not in _CHANGEABLE}
    annotations = {
        RUN: str(container.spec.run),
        RENDERED: sha256(msgspec.json.encode(fixed, order="sorted")).hexdigest()[:32],
    }
    metadata = manifest["metadata"]
    metadata["annotations"] = {**metadata.get("annotations", {}), **annotations}
    return manifest


def first(container: Container, *, held: bool | None = None) -> Manifest:
    """Returns the workload for its creation; that of a StatefulSet has `replicas`.

    With the default of 1, a StatefulSet that is created again would delete pods of its predecessor.
    """
    manifest = workload(container, replicas_set=container.wanted_replicas, held=held)
    if workload_type(container).states_replicas:
        manifest["spec"]["replicas"] = container.wanted_replicas
    return manifest


def with_own_replicas(manifest: Manifest, live: Manifest) -> Manifest:
    """Returns the manifest with the live object's `replicas`, if the platform owns that field by an apply."""
    if not field_paths.is_owned(live, ".spec.replicas", FIELD_MANAGER):
        return manifest
    return {**manifest, "spec": {**manifest["spec"], "replicas": live["spec"]["replicas"]}}


def recreates(manifest: Manifest) -> bool:
    """Returns whether a Deployment ends its old pods first, so that it may have no settings of a rolling update."""
    return bool(manifest["spec"].get("strategy", {}).get("type") == RECREATE)


def services(container: Container) -> list[Manifest]:
    """Returns the Services of the container's ports, in the order of the ports."""
    labels = object_labels(container)
    if container.spec.taken_over is not None:
        labels = {CONTAINER_UID: container.uid, NAMESPACE_UID: container.namespace_uid}
    return [object_of(service, {**labels, SERVICE_UID: service.uid}) for service in owned_services(container)]


def is_ours(container: Container, found: WorkloadObject | Service) -> bool:
    """Returns whether a workload or a Service was made for the container.

    Others may remove the platform's label. But a workload's selector is immutable, and no other workload selects pods
    of this uid.
    """
    selected = found.selected.get(CONTAINER_UID)
    return container.uid in (found.metadata.label(CONTAINER_UID), selected)


def _selector(container: Container, taken_over: TakenOver | None) -> Manifest:
    if taken_over is None:
        return {"matchLabels": {**container.spec.selector, CONTAINER_UID: container.uid}}
    return dict(taken_over.selector)


def service_account(container: Container) -> Manifest | None:
    """Returns the ServiceAccount that the container names.

    It belongs to the namespace, so it has no container's uid. It has no rights by itself, so pods get its token only if
    a container requests it.
    """
    name = container.spec.service_account
    if not name:
        return None
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "automountServiceAccountToken": False,
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
    """Returns whether the platform created a ServiceAccount for a namespace: it has the namespace's uid."""
    metadata = found.metadata
    return metadata.label(MANAGED_BY) == MANAGER and metadata.label(NAMESPACE_UID) == namespace_uid


def timestamp(value: datetime) -> str:
    """Returns a time as RFC 3339 in UTC with microseconds, so that two restarts within one second differ."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
