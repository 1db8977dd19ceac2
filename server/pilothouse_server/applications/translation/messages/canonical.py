"""The canonical form of containers: containers that mean the same are equal in it.

A stored container has the values as its callers gave them. A container from a manifest has Kubernetes' defaults where
another one has no value. To find that nothing has changed, both sides are brought into one form here, with all
defaults, and with quantities as numbers. The order of ports, mounts and volumes has no meaning and is removed. The
order of variables, arguments and tolerations is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import ROUND_CEILING, Decimal
from posixpath import normpath

from google.protobuf.message import Message

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_manifests.cron_jobs import ALLOW
from pilothouse_manifests.fields import FieldPart
from pilothouse_manifests.jobs import NEVER, NON_INDEXED
from pilothouse_manifests.pod_volumes import USUAL_EXPIRATION_SECONDS, USUAL_MODE
from pilothouse_manifests.sources import INT32_MAXIMUM
from pilothouse_manifests.table import (
    DEPLOYMENT_SETTINGS,
    GRACE_SECONDS,
    HTTP_GET,
    MAIN_CONTAINER,
    POD,
    PROBE,
    ROLLING_UPDATE,
    fields_of,
    names_of,
)
from pilothouse_manifests.workloads import ORDERED_READY, RETAIN

# Fields of Container that a manifest decides. `replicas` is one of them only if the manifest states it: like kubectl,
# apply does not undo the scaling of another caller. `pod_container_name` cannot change.
_STATED = {
    *names_of(MAIN_CONTAINER),
    *names_of(POD),
    "deployment",
    "stateful_set",
    "job",
    "cron_job",
    "daemon_set",
    "sidecars",
    "empty_dirs",
    "pod_volumes",
    "replicas",
    "labels",
    "annotations",
    "pod_labels",
    "pod_annotations",
    "extra_fields",
} - {"pod_container_name"}
DECIDED_FIELDS = tuple(field.name for field in pb.Container.DESCRIPTOR.fields if field.name in _STATED)

_NAME = "app.kubernetes.io/name"
_SUFFIXED = re.compile(r"(?P<number>[^A-Za-z]*(?:[eE][-+]?[0-9]+)?)(?P<suffix>[numkMGTPE]?|[KMGTPE]i)")
_POWERS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DEFAULT_REGISTRIES = ("docker.io/", "index.docker.io/")


def canonical(container: pb.Container) -> pb.Container:
    """Returns the fields that a manifest decides, in canonical form. Does not change the argument."""
    result = pb.Container()
    result.CopyFrom(container)
    for field in pb.Container.DESCRIPTOR.fields:
        if field.name not in DECIDED_FIELDS:
            _clear(result, field.name)
    _program(result)
    if dict(result.pod_labels) == {_NAME: container.name}:
        # Pods have this label even if nobody sets it.
        result.pod_labels.clear()
    if not container.HasField("termination_grace_seconds"):
        result.termination_grace_seconds = GRACE_SECONDS
    others: list[pb.Program | pb.InitContainer] = [*result.sidecars, *result.init_containers]
    for program in others:
        _program(program)
        for declared in program.ports:
            declared.protocol = declared.protocol or pb.PROTOCOL_TCP
        program.ports.sort(key=lambda port: (port.container_port, port.protocol))
    _volumes(result)
    for port in result.ports:
        _port(port, container.name)
    for toleration in result.tolerations:
        toleration.operator = toleration.operator or "Equal"
    _fill_workload(result)
    _resources(result.pod_resources)
    for name in ("pod_security_context", "pod_resources"):
        _clear_empty(result, name)
    _sort(result)
    return result


def image(text: str) -> str:
    """Returns the shortest reference to the same image, with its tag: `docker.io/library/nginx` is `nginx:latest`."""
    for registry in _DEFAULT_REGISTRIES:
        text = text.removeprefix(registry)
    path, at, digest = text.partition("@")
    name = path.removeprefix("library/") if path.count("/") == 1 else path
    tagged = ":" in name.rsplit("/", 1)[-1]
    return (name if tagged or at or not name else f"{name}:latest") + at + digest


def amount(text: str, smallest: str = "1e-9") -> str:
    """Returns a quantity as a plain decimal number, rounded up to `smallest`; a text that is none is unchanged."""
    match = _SUFFIXED.fullmatch(text)
    if not text or match is None:
        return text
    suffix = match["suffix"]
    if suffix not in _POWERS and suffix not in _BINARY:
        return text
    number = Decimal(match["number"])
    value = number * 2 ** _BINARY[suffix] if suffix in _BINARY else number.scaleb(_POWERS[suffix])
    rounded = (value / Decimal(smallest)).to_integral_value(ROUND_CEILING) * Decimal(smallest)
    return f"{rounded.normalize():f}"


def _program(container: pb.Container | pb.Program | pb.InitContainer) -> None:
    container.image = image(container.image)
    _fill_probes(container.probes)
    for hook in (container.lifecycle.post_start, container.lifecycle.pre_stop):
        if hook.HasField("http_get"):
            _fill(hook.http_get, HTTP_GET)
    for variable in container.env:
        variable.value_from = variable.value_from or pb.ENV_VALUE_FROM_LITERAL
        # The API writes 0 for an unset value.
        variable.divisor = variable.divisor if variable.divisor != "0" else ""
    _resources(container.resources)
    for name in ("resources", "security_context", "probes", "lifecycle"):
        _clear_empty(container, name)
    for mount in container.volume_mounts:
        # The server stores the shortest spelling of a path.
        mount.mount_path = normpath(f"/{mount.mount_path.lstrip('/')}")
    container.volume_mounts.sort(key=lambda mount: mount.mount_path)


def _resources(resources: pb.Resources) -> None:
    if resources.ByteSize():
        # The server stores cpu in thousandths and memory in bytes, rounded up.
        resources.cpu_request = amount(resources.cpu_request, "0.001")
        resources.cpu_limit = amount(resources.cpu_limit, "0.001")
        resources.memory_request = amount(resources.memory_request, "1")
        resources.memory_limit = amount(resources.memory_limit, "1")
        for amounts in (resources.requests, resources.limits):
            # Iterating a protobuf map while it changes skips entries, and different ones in each process.
            for name, text in list(amounts.items()):
                amounts[name] = amount(text)


def _volumes(container: pb.Container) -> None:
    for folder in container.empty_dirs:
        folder.size_limit = amount(folder.size_limit)
    for volume in container.pod_volumes:
        for files in (volume.config_map, volume.secret, volume.projected, volume.downward_api):
            if files.default_mode == USUAL_MODE:
                files.ClearField("default_mode")
        shown = list(volume.downward_api.items)
        for source in volume.projected.sources:
            shown += source.downward_api.items
            if source.service_account_token.expiration_seconds == USUAL_EXPIRATION_SECONDS:
                source.service_account_token.ClearField("expiration_seconds")
        for file in shown:
            # The API writes 0 for an unset value.
            file.divisor = file.divisor if file.divisor != "0" else ""


def _clear(message: Message, name: str) -> None:
    message.ClearField(name)


def _clear_empty(message: Message, name: str) -> None:
    """Removes an empty part, which means the same as none."""
    if not getattr(message, name).ByteSize():
        message.ClearField(name)


def _port(port: pb.Port, container_name: str) -> None:
    port.protocol = port.protocol or pb.PROTOCOL_TCP
    port.service_type = port.service_type or pb.SERVICE_TYPE_CLUSTER_IP
    if port.service_type != pb.SERVICE_TYPE_NONE:
        port.service_name = port.service_name or container_name
    else:
        port.service_name = ""
    port.service_port = (port.service_port or port.container_port) if port.service_name else 0


def _fill_probes(probes: pb.Probes) -> None:
    for probe in (probes.liveness, probes.readiness, probes.startup):
        if probe.ByteSize():
            _fill(probe, PROBE)
            if probe.HasField("http_get"):
                _fill(probe.http_get, HTTP_GET)


def _fill_workload(container: pb.Container) -> None:
    if container.HasField("stateful_set"):
        _fill_stateful_set(container.stateful_set, container.ports)
    elif container.HasField("job"):
        _fill_job(container.job)
    elif container.HasField("cron_job"):
        _fill_cron_job(container.cron_job)
    elif container.HasField("daemon_set"):
        _fill_daemon_set(container.daemon_set)
    else:
        _fill_deployment(container.deployment)


def _fill_deployment(settings: pb.DeploymentSettings) -> None:
    """Sets unset settings to Kubernetes' defaults; those of rolling updates only if the strategy is rolling update."""
    settings.strategy = settings.strategy or ROLLING_UPDATE
    for field in fields_of(DEPLOYMENT_SETTINGS.entries):
        name = field.name.removeprefix("deployment.")
        if name.startswith("max_") and settings.strategy != ROLLING_UPDATE:
            continue
        stated = {each.name for each, _ in settings.ListFields()}
        if field.default is not None and name not in stated:
            setattr(settings, name, field.default)


def _fill_stateful_set(settings: pb.StatefulSetSettings, ports: Iterable[pb.Port]) -> None:
    """Sets unset settings to Kubernetes' defaults, and the Service's name to the platform's default."""
    settings.pod_management = settings.pod_management or ORDERED_READY
    settings.update_strategy = settings.update_strategy or ROLLING_UPDATE
    if settings.update_strategy == ROLLING_UPDATE:
        settings.max_unavailable = settings.max_unavailable or "1"
    if not settings.HasField("revision_history_limit"):
        settings.revision_history_limit = 10
    retention = settings.claim_retention
    retention.when_deleted = retention.when_deleted or RETAIN
    retention.when_scaled = retention.when_scaled or RETAIN
    if not settings.service_name:
        headless = (each.service_name for each in ports if each.service_type == pb.SERVICE_TYPE_HEADLESS)
        settings.service_name = next(headless, "")
    for template in settings.claim_templates:
        template.size = amount(template.size, "1")
        template.volume_mode = template.volume_mode or "Filesystem"


def _fill_job(settings: pb.JobSettings) -> None:
    """Sets unset settings to Kubernetes' defaults, and the restart policy to the platform's default."""
    settings.restart_policy = settings.restart_policy or NEVER
    settings.completion_mode = settings.completion_mode or NON_INDEXED
    if not settings.HasField("completions") and not settings.HasField("parallelism"):
        settings.completions = 1
    if not settings.HasField("parallelism"):
        settings.parallelism = 1
    if not settings.HasField("backoff_limit"):
        settings.backoff_limit = INT32_MAXIMUM if settings.HasField("backoff_limit_per_index") else 6
    if not settings.pod_replacement_policy:
        settings.pod_replacement_policy = "Failed" if settings.pod_failure_policy else "TerminatingOrFailed"
    for rule in settings.pod_failure_policy:
        for condition in rule.pod_conditions:
            condition.status = condition.status or "True"


def _fill_cron_job(settings: pb.CronJobSettings) -> None:
    """Sets unset settings to Kubernetes' defaults. `max_concurrent` is not a field of manifests."""
    settings.concurrency = settings.concurrency or ALLOW
    if not settings.HasField("successful_history_limit"):
        settings.successful_history_limit = 3
    if not settings.HasField("failed_history_limit"):
        settings.failed_history_limit = 1
    _fill_job(settings.job)


def _fill_daemon_set(settings: pb.DaemonSetSettings) -> None:
    """Sets unset settings to Kubernetes' defaults."""
    settings.update_strategy = settings.update_strategy or ROLLING_UPDATE
    if settings.update_strategy == ROLLING_UPDATE:
        settings.max_surge = settings.max_surge or "0"
        settings.max_unavailable = settings.max_unavailable or ("1" if settings.max_surge == "0" else "0")
    if not settings.HasField("revision_history_limit"):
        settings.revision_history_limit = 10


def _fill(message: Message, part: FieldPart) -> None:
    """Replaces empty values with the defaults that the API uses for them."""
    for field in fields_of(part.entries):
        if field.default is not None and not getattr(message, field.name):
            setattr(message, field.name, field.default)


def _sort(container: pb.Container) -> None:
    container.ports.sort(
        key=lambda port: (port.service_name, port.service_port, port.container_port, port.protocol, port.name)
    )
    container.empty_dirs.sort(key=lambda folder: folder.name)
    container.pod_volumes.sort(key=lambda volume: volume.name)
