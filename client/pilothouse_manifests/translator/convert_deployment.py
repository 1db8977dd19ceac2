"""Converts a Deployment, a StatefulSet, a DaemonSet, a Job or a CronJob to a container.

The table of `pilothouse_manifests` has the names of its fields. This module converts the parts that only a written
manifest has: two sets of labels, a selector, several containers. The selector is checked, because it must select the
template. Its labels are kept, and its expressions dropped: the platform selects pods by the container's uid as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pilothouse_manifests.cron_jobs import (
    CRON_JOB,
    CRON_JOB_TEMPLATE,
    JOB_METADATA,
    JOB_OF_CRON_JOB,
    JOB_TEMPLATE_KEY,
    SCHEDULE,
)
from pilothouse_manifests.extra_fields import SELECTOR_EXPRESSIONS
from pilothouse_manifests.fields import FieldPart, Values
from pilothouse_manifests.jobs import JOB, JOB_TEMPLATE, POD_OF_RUN, SUSPEND, WRITTEN_LABELS
from pilothouse_manifests.reading import Hooks, read, read_each
from pilothouse_manifests.sources import MappingSource
from pilothouse_manifests.table import (
    CONTAINERS,
    DEPLOYMENT,
    MAIN_CONTAINER,
    POD,
    POD_PORT,
    SIDECAR,
    VOLUME_MOUNT,
)
from pilothouse_manifests.translator.convert_volume import PodVolumes, pod_volumes
from pilothouse_manifests.translator.fields import Fields, texts_of
from pilothouse_manifests.translator.manifest import (
    DeclaredPort,
    ManifestWorkload,
    Metadata,
    metadata,
)
from pilothouse_manifests.volumes import DNS_LABEL
from pilothouse_manifests.workloads import CLAIM_TEMPLATE, WORKLOAD_PARTS


def convert_workload(root: Fields, namespace: str, kind: str) -> ManifestWorkload:
    """Returns the workload of the document, of this kind; its reporter shows whether it is usable."""
    part = WORKLOAD_PARTS[kind]
    container: Values = {}
    with root.part("metadata", required=True) as stated:
        own = metadata(stated, namespace)
        container["name"] = own.name
        if stated.present and not re.fullmatch(DNS_LABEL, own.name):
            stated.invalid(
                "name", f"expected at most 63 lower-case letters, digits and '-', found {own.name!r}"
            )
    with root.part("spec", required=True) as spec:
        container |= read(SCHEDULE if part is CRON_JOB else part, spec, _HOOKS) or {}
        if part is not DEPLOYMENT:
            # Settings that are all defaults still determine the kind.
            container.setdefault(part.name, {})
        if part is CRON_JOB:
            pods, declared, volumes = _jobs(spec, container, namespace)
        else:
            pods, declared, volumes = _template(spec, container, part, namespace)
        pod_labels = texts_of(pods.labels)
        if part is JOB:
            _pass_selector(spec, own.exported)
        elif part is not CRON_JOB:
            with spec.part("selector", required=True) as selector:
                container["selector"] = _selector(selector, pod_labels)
    container |= {"labels": texts_of(own.labels), "annotations": texts_of(own.annotations)}
    container |= {"pod_labels": dict(pod_labels), "pod_annotations": texts_of(pods.annotations)}
    if part in (JOB, CRON_JOB):
        _settle_labels(container, own.exported)
    _drop_platform_labels(container)
    return ManifestWorkload(
        root.place, root.reporter, container, declared, pod_labels, volumes.implied, volumes.claims
    )


def _template(
    spec: Fields, container: Values, part: FieldPart, namespace: str
) -> tuple[Metadata, list[DeclaredPort], PodVolumes]:
    """Fills in the values of a template.

    Returns its metadata, the ports that it declares, and its volumes."""
    with spec.part("template", required=True) as template:
        with template.part("metadata") as stated:
            pods = metadata(stated, namespace)
            stated.only_default("name")
        with template.part("spec", required=True) as pod:
            templates = container.get(part.name, {}).get("claim_templates", ())
            names = [each["name"] for each in templates if "name" in each]
            return pods, *_pod(pod, container, names, part)


def _jobs(spec: Fields, container: Values, namespace: str) -> tuple[Metadata, list[DeclaredPort], PodVolumes]:
    """Fills in the settings and the template of a CronJob's Jobs.

    Returns the same as `_template`."""
    settings: Values = container[CRON_JOB.name]
    with spec.part(JOB_TEMPLATE_KEY, required=True) as jobs:
        with jobs.part("metadata") as stated:
            settings |= (read(JOB_METADATA, stated) or {}).get(CRON_JOB.name, {})
            stated.only_default("name")
        with jobs.part("spec", required=True) as of_job:
            settings |= (read(JOB_OF_CRON_JOB, of_job) or {}).get(CRON_JOB.name, {})
            of_job.only_default(SUSPEND, False)
            return _template(of_job, container, CRON_JOB, namespace)


def _without_pause(rollout: Values, source: MappingSource) -> Values:
    """Removes and reports a rollout's pause: calls hold rollouts, manifests do not."""
    if rollout.pop("hold_rollout", False):
        source.unsupported("paused")
    return rollout


def _without_suspension(job: Values, source: MappingSource) -> Values:
    """Removes and reports a Job's suspension: calls suspend runs.

    A suspended Job becomes unusable as a whole: leaving the field out would start a run that was not requested yet."""
    if job.pop("suspended", False):
        words = "remove it and apply, which starts the run; `pilothouse containers stop NAME` suspends it"
        source.unusable(SUSPEND, f"cannot be represented: {words}")
    return job


def _without_stop(schedule: Values, source: MappingSource) -> Values:
    """Removes and reports a schedule's suspension.

    A suspended schedule becomes unusable as a whole: leaving the field out would start it."""
    if schedule.pop("suspended", False):
        words = (
            "remove it and apply, which begins the schedule; `pilothouse containers stop NAME` suspends it"
        )
        source.unusable(SUSPEND, f"cannot be represented: {words}")
    return schedule


def _with_size(claim: Values, source: MappingSource) -> Values:
    if not claim.get("size"):
        source.invalid("spec.resources.requests.storage", "expected a size, found none")
    return claim


_HOOKS: Hooks = {
    DEPLOYMENT: _without_pause,
    CLAIM_TEMPLATE: _with_size,
    JOB: _without_suspension,
    SCHEDULE: _without_stop,
}


def _pass_selector(spec: Fields, exported: bool) -> None:
    """Skips a Job's selector, which the API writes and an export contains; reports one that a person wrote."""
    if exported:
        spec.drop("selector")
    elif spec.has("selector"):
        spec.unusable("selector", "cannot be represented: Kubernetes writes the selector of a Job; remove it")


def _settle_labels(container: Values, exported: bool) -> None:
    """Drops the labels that the API has written, and keeps a Job's labels from pods that have none.

    Pods without stated labels and annotations would get those of the container; the label that the platform writes
    itself counts as stated.
    """
    if exported:
        for key in WRITTEN_LABELS:
            container["labels"].pop(key, None)
            container["pod_labels"].pop(key, None)
    if not container["pod_labels"] and not container["pod_annotations"]:
        container["pod_labels"]["app.kubernetes.io/name"] = container["name"]


def _selector(selector: Fields, labels: dict[str, str]) -> dict[str, str]:
    """Returns the labels by which the workload selects its pods."""
    stated = selector.text_map("matchLabels")
    for key, entry in stated.items():
        if labels.get(key) != entry.text:
            wrong = f"expected a label of the pod template, found {entry.text!r}"
            selector.reporter.invalid(entry.place, entry.path, wrong)
    expressions = list(selector.each("matchExpressions"))
    for expression in expressions:
        with expression:
            key = expression.text("key", required=True)
            operator = expression.text("operator", choices=("In", "NotIn", "Exists", "DoesNotExist"))
            values = expression.texts("values")
        selects = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not selects.get(operator, False):
            expression.invalid(None, "expected to select the pod template's labels")
    if expressions:
        node, place = selector.node.entries["matchExpressions"].value, selector.place_of("matchExpressions")
        selector.reporter.carry(SELECTOR_EXPRESSIONS, node, place)
    if not selector.has("matchLabels") and not expressions and selector.present:
        selector.invalid(None, "expected labels, found none")
    return texts_of(stated)


def _drop_platform_labels(container: Values) -> None:
    """Drops labels with the values that the platform sets itself; other labels are the container's own and are kept."""
    for key, value in (
        ("app.kubernetes.io/name", container["name"]),
        ("app.kubernetes.io/managed-by", "pilothouse"),
    ):
        for labels in (container["labels"], container["pod_labels"]):
            # Pods without labels of their own would get those of the container.
            if labels.get(key) == value and (labels is container["labels"] or len(labels) > 1):
                del labels[key]


def _pod(
    pod: Fields, container: Values, templates: Sequence[str], part: FieldPart
) -> tuple[list[DeclaredPort], PodVolumes]:
    """Fills in the pod's values; returns the ports it declares, and its volumes."""
    volumes = pod_volumes(pod, templates)
    container["empty_dirs"] = volumes.empty_dirs
    container["pod_volumes"] = volumes.own
    hooks = _hooks(volumes)
    if part is JOB:
        container[part.name] |= (read(JOB_TEMPLATE, pod) or {}).get(part.name, {})
    elif part is CRON_JOB:
        found = (read(CRON_JOB_TEMPLATE, pod) or {}).get(part.name, {})
        container[part.name].setdefault("job", {}).update(found.get("job", {}))
    values = read(POD_OF_RUN if part in (JOB, CRON_JOB) else POD, pod, hooks) or {}
    containers = list(pod.each(CONTAINERS))
    if not containers:
        if pod.present:
            pod.invalid(CONTAINERS, "expected a list with a container, found none")
        return [], volumes
    # The first container is the main one, as in kubectl.
    if len(containers) > 1:
        values["sidecars"] = list(read_each(SIDECAR, containers[1:], hooks))
    with containers[0] as main:
        values |= read(MAIN_CONTAINER, main, hooks) or {}
    declared = [
        DeclaredPort(
            port["container_port"],
            port["protocol"],
            port.get("name", ""),
            port.get("host_port", 0),
        )
        for port in values.pop("ports", ())
    ]
    container |= values
    return declared, volumes


def _hooks(volumes: PodVolumes) -> Hooks:
    """Returns the rules for each part of a pod in addition to those of the table."""
    declared: list[Values] = []

    def declare(port: Values, source: MappingSource) -> Values | None:
        number, name = port.get("container_port"), port.get("name")
        if number is None:
            return None
        if any((each["container_port"], each["protocol"]) == (number, port["protocol"]) for each in declared):
            source.unsupported(None, f"cannot be represented: port {number} is declared twice")
            return None
        if name and any(each.get("name") == name for each in declared):
            source.invalid(None, f"expected each port name once, found {name!r} again")
            return None
        declared.append(port)
        return port

    def mount(stated: Values, source: MappingSource) -> Values | None:
        name = stated.get("volume", "")
        volume = volumes.by_name.get(name)
        if volume is not None:
            read_only = stated.get("read_only", False) or volume.read_only
            return {**stated, "volume": volume.name, "read_only": read_only}
        if name in volumes.reported:
            assert isinstance(source, Fields)
            message = f"mounts the volume {name!r}, which cannot be represented"
            follows = f"{source.reporter.subject}: {volumes.reported[name]}"
            source.reporter.unsupported(*source.at(None), message, follows=follows)
            return None
        if name:
            source.invalid(None, f"expected the name of a volume of the pod, found {name!r}")
            return None
        return stated

    return {POD_PORT: declare, VOLUME_MOUNT: mount}
