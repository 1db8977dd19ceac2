"""From a container to the Kubernetes objects that run it: pure functions, the fields of our own and no others.

A manifest contains the fields that server-side apply takes ownership of. Omitted fields stay with their owner:
`replicas` is never in it, because the scale subresource sets it and an autoscaler may own it; defaults of the API are
not written.

Identity: every object carries our labels, and the pods are selected by the container's uid, next to labels of the
manifest. The selector is immutable, so nothing that a caller can change may be in it; and a container made again under
the same name does not adopt its predecessor's pods.

An imported workload is the exception. Its selector cannot be changed and its pods shall not restart, so it keeps its
selector and the labels of its pods (`taken_over`), and only the objects' own metadata carry the container's uid. Its
pods are found by their owners. The ports that it declares on its pods stay apart from those of its Services.
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
# The replicas that we set through the scale subresource last: as long as it equals what is wanted, we leave the
# number to others.
REPLICAS_SET = f"{DOMAIN}/replicas-set"
# The generation whose fixed settings the object was made again for.
REPLACED_AT = f"{DOMAIN}/replaced-generation"
# A digest of the parts of a Job that cannot change: while it is the same, the whole Job may be applied again.
RENDERED = f"{DOMAIN}/rendered"
# A label that no node has: a DaemonSet whose template selects it is stopped.
NO_NODE = f"{DOMAIN}/no-node"
# On a Job of a CronJob that its schedule did not start.
INSTANTIATED = "cronjob.kubernetes.io/instantiate"
# Fields of a Job that can change while it runs.
_CHANGEABLE = frozenset(
    {
        *("activeDeadlineSeconds", "backoffLimit", "maxFailedIndexes", "parallelism", "suspend"),
        "ttlSecondsAfterFinished",
    }
)
# Workloads, Services, replica sets and pods of containers; those of imported workloads' pods do not say so.
OWNED_SELECTOR = CONTAINER_UID
FOREIGN_SELECTOR = f"!{CONTAINER_UID}"


def pod_labels(container: Container) -> dict[str, str]:
    """The caller's labels and ours: the labels that we select by win, but `managed-by` is the caller's to set.

    The pods of an imported workload have theirs alone, or they would restart. Those of a CronJob do not, so the next
    ones get the label by which they are found.
    """
    taken_over = container.spec.taken_over
    if taken_over is not None:
        ours = {CONTAINER_UID: container.uid} if has_schedule(container) else {}
        theirs = {key: text for key, text in taken_over.pod_labels.items() if is_platforms(key)}
        return container.spec.pod_labels | theirs | ours
    return _labels(container, container.spec.pod_labels)


def pod_annotations(container: Container) -> dict[str, str]:
    """The caller's annotations, and those of the platform's that an imported workload brought along."""
    taken_over = container.spec.taken_over
    brought = {} if taken_over is None else taken_over.pod_annotations
    return container.spec.pod_annotations | {key: text for key, text in brought.items() if is_platforms(key)}


def is_platforms(key: str) -> bool:
    """Returns whether a key of labels or annotations is set by the platform alone."""
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
    """Returns the labels of the workload and the Services of a container: they are ours, also of imported pods."""
    return _labels_of_object(container, container.labels)


def _labels_of_object(container: Container, labels: dict[str, str]) -> dict[str, str]:
    home = {NAMESPACE_UID: container.namespace_uid}
    if container.spec.taken_over is None:
        return {**_labels(container, labels), MANAGED_BY: MANAGER, **home}
    # Others find these objects by labels of their own, `managed-by` among them.
    return {**labels, CONTAINER_UID: container.uid, **home}


def workload(container: Container, *, replicas_set: int | None = None, held: bool | None = None) -> Manifest:
    """The workload of a container, without `replicas`.

    `replicas_set`: the number of replicas last set, which an annotation records. `held`: whether the rollout is held
    (default: as the container says); with True a new Deployment starts no pod before it is scaled.
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
    """Returns whether pods that shall run are replaced between two states: the template differs, and no rollout is
    held.
    """
    if not workload_type(after).rolls_out or after.hold_rollout or not after.wanted_replicas:
        return False
    templates = [workload(each)["spec"]["template"] for each in (before, after)]
    return bool(templates[0] != templates[1])


def _to_jobs(container: Container, manifest: Manifest) -> None:
    """Moves the template of the pods to that of the Jobs, and adds the fields of each Job."""
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
    """Returns the Job of a run of a CronJob that was requested, as `kubectl create job --from` makes it.

    It is suspended: so it can neither end nor be deleted for its age before the CronJob notes that it was made.
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
    """The manifest of a Job: the API writes its selector, and labels of its own next to those of its pods."""
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
    """The workload that is made when there is none: a StatefulSet has its number of pods from the beginning.

    With 1, which is the default, pods of one that is made again would be deleted.
    """
    manifest = workload(container, replicas_set=container.wanted_replicas, held=held)
    if workload_type(container).states_replicas:
        manifest["spec"]["replicas"] = container.wanted_replicas
    return manifest


def with_own_replicas(manifest: Manifest, live: Manifest) -> Manifest:
    """Returns the manifest with the number of pods that the live object has, where that is ours by an apply."""
    if not field_paths.is_owned(live, ".spec.replicas", FIELD_MANAGER):
        return manifest
    return {**manifest, "spec": {**manifest["spec"], "replicas": live["spec"]["replicas"]}}


def recreates(manifest: Manifest) -> bool:
    """Returns whether a Deployment ends its old pods first; it may have no settings of a rolling update then."""
    return bool(manifest["spec"].get("strategy", {}).get("type") == RECREATE)


def services(container: Container) -> list[Manifest]:
    """The Services that its ports make, in the order of the ports."""
    labels = object_labels(container)
    if container.spec.taken_over is not None:
        labels = {CONTAINER_UID: container.uid, NAMESPACE_UID: container.namespace_uid}
    return [object_of(service, {**labels, SERVICE_UID: service.uid}) for service in owned_services(container)]


def is_ours(container: Container, found: WorkloadObject | Service) -> bool:
    """Returns whether a workload or a Service was made for the container.

    Others may take our label away. A workload's selector cannot be changed, and no other selects pods of this uid.
    """
    selected = found.selected.get(CONTAINER_UID)
    return container.uid in (found.metadata.label(CONTAINER_UID), selected)


def _selector(container: Container, taken_over: TakenOver | None) -> Manifest:
    if taken_over is None:
        return {"matchLabels": {**container.spec.selector, CONTAINER_UID: container.uid}}
    return dict(taken_over.selector)


def service_account(container: Container) -> Manifest | None:
    """The ServiceAccount that the container names; it belongs to the namespace, so it carries no container's uid.

    Nobody has given it rights, so pods get its token only if a container asks for it.
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
    """Returns whether the platform made a ServiceAccount for a namespace: it carries the namespace's uid."""
    metadata = found.metadata
    return metadata.label(MANAGED_BY) == MANAGER and metadata.label(NAMESPACE_UID) == namespace_uid


def timestamp(value: datetime) -> str:
    """RFC 3339 in UTC with microseconds, so that two restarts within one second differ."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
