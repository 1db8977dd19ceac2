"""The rules and defaults of a container that do not depend on the system's state.

`checked` returns a caller's container, complete and in normal form, or raises an error that names the fields that break
a rule. Rules of single fields (lengths, forms, ranges) are declared in the proto file and are checked before; this
module has the rules between fields. Kubernetes' own rules come from its API reference for Pods, Deployments and
Services (v1.36).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal, TypeVar

import msgspec

from pilothouse_manifests.pod_requests import pod_request
from pilothouse_manifests.table import GRACE_SECONDS
from pilothouse_server.containers.amounts import checked_resources
from pilothouse_server.containers.extra_fields import checked_extra_fields
from pilothouse_server.containers.findings import Findings
from pilothouse_server.containers.job_rules import check_runs
from pilothouse_server.containers.job_status import concurrent_pods
from pilothouse_server.containers.manifests import pod_labels
from pilothouse_server.containers.model import (
    Container,
    ContainerSpec,
    EnvFrom,
    EnvVar,
    InitContainer,
    Lifecycle,
    LifecycleHandler,
    Port,
    Probe,
    Probes,
    Program,
    ProgramPort,
    Resources,
    SeccompProfile,
    SecurityContext,
    Sleep,
)
from pilothouse_server.containers.volume_rules import check_amount, check_field, check_pod_volumes
from pilothouse_server.containers.workload_rules import check_workload, normal_form
from pilothouse_server.values.names import dns_subdomain_problem, is_pod_port_name, port_name_problem
from pilothouse_server.values.quantity import Quantity, normalise
from pilothouse_server.values.volumes import ROOT_WORDS, VolumeMount, canonical_mount_path

RESERVED_DOMAIN = "pilothouse.dev"
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_COUNTED: Final[tuple[Literal["cpu", "memory"], ...]] = ("cpu", "memory")
ProgramT = TypeVar("ProgramT", bound=Program)
_FIELD_PATHS = frozenset(
    {
        "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
        "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
    }
)  # fmt: skip


def checked(container: Container) -> Container:
    """Returns the container, complete and in normal form.

    Raises:
        InvalidArgument: fields break a rule; the error names at most 20 of them.
    """
    found = Findings()
    if not container.name:
        found.missing("container.name")
    if not container.image:
        found.missing("container.image")
    spec = container.spec
    check_pod_volumes(found, container)
    _check_keys(found, "container.labels", container.labels)
    _check_keys(found, "container.annotations", container.annotations)
    _check_keys(found, "container.pod_labels", spec.pod_labels)
    _check_keys(found, "container.pod_annotations", spec.pod_annotations)
    _check_keys(found, "container.selector", spec.selector)
    _check_selected(found, container)
    found.unique("container.image_pull_secrets", enumerate(spec.image_pull_secrets), "the secret")
    programs = [_checked_program(found, field, program, spec) for field, program in container.programs()]
    _check_names(found, container)
    pod_resources = checked_resources(found, "container.pod_resources", spec.pod_resources)
    _check_pod_resources(found, container, pod_resources)
    _check_tolerations(found, container)
    _check_pod_security(found, container)
    check_workload(found, container)
    check_runs(found, container)
    extra = checked_extra_fields(found, container)
    ports = _checked_ports(found, container)
    found.raise_if_any()
    container = normal_form(container)
    spec = container.spec
    sidecars = 1 + len(spec.sidecars)
    return msgspec.structs.replace(
        container,
        ports=ports,
        resources=programs[0].resources,
        volume_mounts=_spelled(container, container.volume_mounts),
        spec=msgspec.structs.replace(
            spec,
            extra_fields=extra,
            pod_resources=pod_resources,
            sidecars=tuple(_in_normal_form(container, each) for each in programs[1:sidecars]),
            init_containers=tuple(_in_normal_form(container, each) for each in programs[sidecars:]),
            empty_dirs=tuple(
                msgspec.structs.replace(
                    item, size_limit=normalise(item.size_limit) if item.size_limit else ""
                )
                for item in spec.empty_dirs
            ),
        ),
    )


def with_pod_labels(container: Container) -> Container:
    """Returns a new container with its own labels and annotations for the pods, unless the caller set the pods'."""
    spec = container.spec
    if spec.pod_labels or spec.pod_annotations or container.imported:
        return container
    spec = msgspec.structs.replace(spec, pod_labels=container.labels, pod_annotations=container.annotations)
    return msgspec.structs.replace(container, spec=spec)


def quota_share(container: Container) -> tuple[int, int]:
    """Returns the millicores and bytes that a container counts against the quota.

    The share is the request of a pod (`pod_request`) times the replicas, or times the concurrent pods of a Job until it
    has ended. Stopped and paused containers count, so that they can start again. If a program has no request, its limit
    counts, as in Kubernetes. A program that has neither counts nothing: a tiny request would have the same effect, and
    the server does not know a LimitRange of the cluster.

    The request of the pod as a whole overrides those of its programs. Its limit counts only if its programs have
    neither requests nor limits.
    """
    cpu, memory = _of_programs(container)
    whole = container.spec.pod_resources
    if whole != Resources():
        cpu = _amount("cpu", whole.request("cpu")) or cpu or _amount("cpu", whole.limit("cpu"))
        memory = (
            _amount("memory", whole.request("memory")) or memory or _amount("memory", whole.limit("memory"))
        )
    pods = concurrent_pods(container)
    return cpu * pods, memory * pods


def _of_programs(container: Container) -> tuple[int, int]:
    """Returns the millicores and bytes that the programs of one pod request together."""
    spec = container.spec
    running = (container.resources, *(each.resources for each in spec.sidecars))
    starting = tuple((each.resources, each.is_sidecar) for each in spec.init_containers)
    cpu = pod_request(map(_millicores, running), ((_millicores(each), stays) for each, stays in starting), 0)
    memory = pod_request(map(_bytes, running), ((_bytes(each), stays) for each, stays in starting), 0)
    return cpu, memory


def _check_pod_resources(found: Findings, container: Container, whole: Resources) -> None:
    """Notes broken rules of Kubernetes (v1.36) for the resources of a pod as a whole."""
    field = "container.pod_resources"
    for kind in ("requests", "limits"):
        for name in getattr(whole, kind):
            if name not in ("cpu", "memory") and not name.startswith("hugepages-"):
                found.add(f"{field}.{kind}", "key", f'"{name}" must be cpu, memory or hugepages-SIZE')
    if whole == Resources():
        return
    for resource, requested in zip(_COUNTED, _of_programs(container), strict=True):
        text = whole.request(resource)
        if text and _amount(resource, text) < requested:
            words = "must not be below the sum that its programs request"
            found.add(f"{field}.{resource}_request", "minimum", words)


def reads_keys(container: Container, kind: str, name: str, keys: Collection[str]) -> bool:
    """Returns whether the environment or a pod volume requires one of these keys of a config map or secret."""
    shown = [keys for each in container.spec.pod_volumes for _, keys in each.sources() if not keys.optional]
    return any(
        (each.value_from, each.source_name) == (kind, name) and any(item.key in keys for item in each.items)
        for each in shown
    ) or any(
        (each.value_from, each.source_name) == (kind, name) and each.source_key in keys and not each.optional
        for each in container.all_variables
    )


def _millicores(resources: Resources) -> int:
    return _amount("cpu", resources.request("cpu") or resources.limit("cpu"))


def _bytes(resources: Resources) -> int:
    return _amount("memory", resources.request("memory") or resources.limit("memory"))


def _amount(resource: Literal["cpu", "memory"], text: str) -> int:
    if not text:
        return 0
    quantity = Quantity.parse(text)
    return quantity.millicores if resource == "cpu" else quantity.whole


def _check_keys(found: Findings, field: str, keys: Mapping[str, str]) -> None:
    for key in keys:
        prefix, slash, _ = key.partition("/")
        if (
            slash
            and (prefix == RESERVED_DOMAIN or prefix.endswith(f".{RESERVED_DOMAIN}"))
            and (prefix != f"simulate.{RESERVED_DOMAIN}")
        ):
            found.add(field, "reserved", f'"{key}": keys of {RESERVED_DOMAIN} are set by the platform')


def _check_selected(found: Findings, container: Container) -> None:
    """Notes pod labels that do not match the workload's selector, because Kubernetes refuses such a workload."""
    taken_over, labels = container.spec.taken_over, pod_labels(container)
    if taken_over is None:
        for key, text in container.spec.selector.items():
            if labels.get(key) != text:
                rule = f'must have "{key}": "{text}", because selector has it and cannot change'
                found.add("container.pod_labels", "selector", rule)
        return
    for key, text in taken_over.selector.get("matchLabels", {}).items():
        if labels.get(key) != text:
            rule = f'must keep "{key}": "{text}", by which the Deployment selects its pods'
            found.add("container.pod_labels", "selector", rule)
    for each in taken_over.selector.get("matchExpressions", ()):
        key, values = each["key"], each.get("values") or ()
        selects = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not selects.get(each["operator"], True):
            rule = (
                f'must match the selector of the Deployment: "{key}" {each["operator"]} {", ".join(values)}'
            )
            found.add("container.pod_labels", "selector", rule.rstrip())


def _check_env(found: Findings, field: str, env: Sequence[EnvVar]) -> None:
    found.unique(field, enumerate(item.name for item in env), "the name")
    for index, item in enumerate(env):
        at = f"{field}[{index}]"
        if item.divisor and item.value_from != "resource_field_ref":
            found.add(f"{at}.divisor", "unused", "is only allowed with value_from RESOURCE_FIELD_REF")
        if item.external and item.value_from not in ("config_map", "secret"):
            found.add(f"{at}.external", "unused", "is only allowed with value_from CONFIG_MAP and SECRET")
        if item.value_from == "literal":
            for name in ("source_name", "source_key"):
                if getattr(item, name):
                    found.add(f"{at}.{name}", "unused", "must be empty for a literal value")
        else:
            _check_env_source(found, at, item)


def _check_env_source(found: Findings, at: str, item: EnvVar) -> None:
    """Notes broken rules of a variable whose value comes from a source."""
    if item.value:
        found.add(f"{at}.value", "unused", f"must be empty for a value from {item.value_from}")
    if not item.source_key:
        found.add(f"{at}.source_key", "required", f"must be set for a value from {item.value_from}")
    if item.value_from == "field_ref":
        if item.source_name:
            found.add(f"{at}.source_name", "unused", "must be empty for a field of the pod")
        check_field(found, at, item.source_key, _FIELD_PATHS)
    elif item.value_from == "resource_field_ref":
        check_amount(found, at, item.source_key, item.divisor)
    elif not item.source_name:
        found.add(f"{at}.source_name", "required", f"must be set for a value from a {item.value_from}")
    elif item.external and (problem := dns_subdomain_problem(item.source_name)):
        found.add(f"{at}.source_name", "format", problem)


def _check_env_from(found: Findings, field: str, sources: Sequence[EnvFrom]) -> None:
    for index, item in enumerate(sources):
        if item.value_from not in ("config_map", "secret"):
            found.add(f"{field}[{index}].value_from", "one_of", "must be one of CONFIG_MAP, SECRET")


def _check_mounts(found: Findings, field: str, mounts: Sequence[VolumeMount]) -> None:
    paths = [canonical_mount_path(item.mount_path) for item in mounts]
    found.unique(field, enumerate(paths), "the mount path")
    for index, path in enumerate(paths):
        if path == "/":
            found.add(f"{field}[{index}].mount_path", "root", ROOT_WORDS)


def _spelled(container: Container, mounts: tuple[VolumeMount, ...]) -> tuple[VolumeMount, ...]:
    if container.imported:
        return mounts
    return tuple(
        msgspec.structs.replace(each, mount_path=canonical_mount_path(each.mount_path)) for each in mounts
    )


def _checked_ports(found: Findings, container: Container) -> tuple[Port, ...]:
    field = "container.ports"
    ports = tuple(
        _completed_port(found, f"{field}[{i}]", port, container.name)
        for i, port in enumerate(container.ports)
    )
    served = [(i, port) for i, port in enumerate(ports) if port.service_type != "None"]
    bare = [(i, port) for i, port in enumerate(ports) if port.service_type == "None"]
    found.unique(
        field, ((i, (p.service_name, p.service_port, p.protocol)) for i, p in served), "the service port"
    )
    found.unique(field, ((i, (p.container_port, p.protocol)) for i, p in bare), "the port without a service")
    found.unique(field, ((i, (p.service_name, p.name)) for i, p in served if p.name), "the port name")
    _check_services(found, field, served)
    names: dict[str, tuple[int, str]] = {}
    for index, port in enumerate(ports):
        if (
            port.name
            and names.setdefault(port.name, (port.container_port, port.protocol))[1] != port.protocol
        ):
            found.add(f"{field}[{index}].name", "agree", "the same name is used for two protocols")
    return ports


def _check_services(found: Findings, field: str, served: Sequence[tuple[int, Port]]) -> None:
    """Notes ports that cannot be in one Service."""
    first_of: dict[str, Port] = {}
    ports_of: dict[str, int] = {}
    for index, port in served:
        ports_of[port.service_name] = ports_of.get(port.service_name, 0) + 1
        first = first_of.setdefault(port.service_name, port)
        if first.service_type != port.service_type:
            found.add(
                f"{field}[{index}].service_type", "agree", "the ports of one service must have the same type"
            )
        at = f"{field}[{index}].service_annotations"
        if first.service_annotations != port.service_annotations:
            found.add(at, "agree", "the ports of one service must have the same annotations")
        _check_keys(found, at, port.service_annotations)
    for index, port in served:
        if ports_of[port.service_name] > 1 and not port.name:
            found.add(f"{field}[{index}].name", "required", "must be set where a service has several ports")


def _completed_port(found: Findings, field: str, port: Port, container: str) -> Port:
    if port.service_type == "None":
        if port.name and (problem := port_name_problem(port.name)):
            found.add(f"{field}.name", "format", f"{problem}, because the port has no service")
        for name in ("service_name", "service_port", "node_port", "service_annotations"):
            if getattr(port, name):
                found.add(f"{field}.{name}", "unused", "must be unset for a port without a service")
        return port
    if port.node_port:
        if port.service_type not in ("NodePort", "LoadBalancer"):
            found.add(
                f"{field}.node_port",
                "unused",
                "is only allowed with service_type NODE_PORT and LOAD_BALANCER",
            )
        elif not 30000 <= port.node_port <= 32767:
            found.add(f"{field}.node_port", "range", "must be 30000 to 32767")
    return msgspec.structs.replace(
        port,
        service_name=port.service_name or container,
        service_port=port.service_port or port.container_port,
    )


def _checked_program(found: Findings, field: str, program: ProgramT, spec: ContainerSpec) -> ProgramT:
    """Returns a program with its resources in normal form; notes each broken rule. Its image is not checked."""
    _check_env(found, f"{field}.env", program.env)
    _check_env_from(found, f"{field}.env_from", program.env_from)
    _check_mounts(found, f"{field}.volume_mounts", program.volume_mounts)
    found.one_of(f"{field}.image_pull_policy", program.image_pull_policy, PULL_POLICIES)
    _check_rights(found, f"{field}.security_context", program.security_context)
    _check_probes(found, field, program)
    _check_hooks(found, field, program, spec)
    if field != "container":
        _check_declared_ports(found, field, program.ports)
    if isinstance(program, InitContainer):
        _check_restarts(found, field, program)
    return msgspec.structs.replace(
        program, resources=checked_resources(found, f"{field}.resources", program.resources)
    )


def _in_normal_form(container: Container, program: ProgramT) -> ProgramT:
    """Returns a sidecar or an init container with its mount paths in normal form."""
    return msgspec.structs.replace(program, volume_mounts=_spelled(container, program.volume_mounts))


def _check_names(found: Findings, container: Container) -> None:
    """Notes programs that have the name of an earlier program of the pod."""
    seen: set[str] = set()
    for field, program in container.programs():
        if program.name in seen:
            found.add(f"{field}.name", "unique", f'another program of the pod is called "{program.name}"')
        seen.add(program.name)


def _check_declared_ports(found: Findings, field: str, ports: Sequence[ProgramPort]) -> None:
    at = f"{field}.ports"
    found.unique(at, ((i, (each.container_port, each.protocol)) for i, each in enumerate(ports)), "the port")
    found.unique(at, ((i, each.name) for i, each in enumerate(ports) if each.name), "the port name")


def _check_restarts(found: Findings, field: str, init: InitContainer) -> None:
    """Notes an unknown restart policy, and probes and hooks that are not allowed.

    Only a native sidecar runs together with the main program, so only a native sidecar may have probes and hooks.
    """
    found.one_of(f"{field}.restart_policy", init.restart_policy, ("Always",))
    if init.is_sidecar:
        return
    for name, given in (("probes", init.probes != Probes()), ("lifecycle", init.lifecycle != Lifecycle())):
        if given:
            words = "is only allowed with restart_policy Always: the init container ends before the main program starts"
            found.add(f"{field}.{name}", "unused", words)


def _check_probes(found: Findings, field: str, program: Program) -> None:
    for kind in ("liveness", "readiness", "startup"):
        probe: Probe | None = getattr(program.probes, kind)
        if probe is None:
            continue
        at = f"{field}.probes.{kind}"
        if kind != "readiness" and probe.success_threshold > 1:
            found.add(f"{at}.success_threshold", "maximum", "must be 1 for a liveness or startup probe")
        if kind == "readiness" and probe.termination_grace_seconds:
            found.add(
                f"{at}.termination_grace_seconds",
                "unused",
                "is not allowed for a readiness probe, which never ends the program",
            )
        _check_handler(found, at, probe.handler, program)


def _check_hooks(found: Findings, field: str, program: Program, spec: ContainerSpec) -> None:
    grace = GRACE_SECONDS if spec.termination_grace_seconds is None else spec.termination_grace_seconds
    for name in ("post_start", "pre_stop"):
        hook: LifecycleHandler | None = getattr(program.lifecycle, name)
        if hook is None:
            continue
        at = f"{field}.lifecycle.{name}"
        if isinstance(hook.handler, Sleep) and hook.handler.seconds > grace:
            words = f"must be at most termination_grace_seconds, which is {grace}"
            found.add(f"{at}.sleep.seconds", "maximum", words)
        _check_handler(found, at, hook.handler, program)


def _check_handler(found: Findings, field: str, handler: object, program: Program) -> None:
    """Notes a port that the program does not have, and an unknown scheme."""
    port_name = getattr(handler, "port_name", None)
    if port_name is not None and bool(port_name) == bool(getattr(handler, "port", 0)):
        found.add(
            f"{field}.{_handler_name(handler)}.port",
            "required",
            "exactly one of port and port_name must be set",
        )
    elif port_name and not any(
        each.name == port_name and is_pod_port_name(each.name) for each in program.ports
    ):
        found.add(f"{field}.{_handler_name(handler)}.port_name", "unknown", "is not a port of this program")
    found.one_of(f"{field}.http_get.scheme", getattr(handler, "scheme", ""), ("HTTP", "HTTPS"))


def _handler_name(handler: object) -> str:
    return str(type(handler).__struct_config__.tag)  # type: ignore[attr-defined]


def _check_tolerations(found: Findings, container: Container) -> None:
    for index, item in enumerate(container.spec.tolerations):
        field = f"container.tolerations[{index}]"
        found.one_of(f"{field}.operator", item.operator, ("Equal", "Exists"))
        found.one_of(f"{field}.effect", item.effect, ("NoSchedule", "PreferNoSchedule", "NoExecute"))
        if item.operator == "Exists" and item.value:
            found.add(f"{field}.value", "unused", "must be empty with operator Exists")
        if not item.key and item.operator != "Exists":
            found.add(f"{field}.operator", "required", "must be Exists where no key is given")
        if item.toleration_seconds is not None and item.effect != "NoExecute":
            found.add(f"{field}.toleration_seconds", "unused", "is only allowed with effect NoExecute")


def _check_pod_security(found: Findings, container: Container) -> None:
    if (pod := container.spec.pod_security_context) is not None:
        _check_seccomp(found, "container.pod_security_context", pod.seccomp_profile)
        found.one_of(
            "container.pod_security_context.fs_group_change_policy",
            pod.fs_group_change_policy,
            ("OnRootMismatch", "Always"),
        )


def _check_rights(found: Findings, field: str, context: SecurityContext | None) -> None:
    if context is None:
        return
    _check_seccomp(found, field, context.seccomp_profile)
    if context.allow_privilege_escalation is False:
        escalation = f"{field}.allow_privilege_escalation"
        if context.privileged:
            found.add(escalation, "agree", "cannot be false for a privileged container")
        if "CAP_SYS_ADMIN" in context.capabilities_add:
            found.add(escalation, "agree", "cannot be false for a container that adds CAP_SYS_ADMIN")


def _check_seccomp(found: Findings, field: str, profile: SeccompProfile | None) -> None:
    if profile is None:
        return
    found.one_of(f"{field}.seccomp_profile.type", profile.type, ("RuntimeDefault", "Unconfined", "Localhost"))
    if (profile.type == "Localhost") != bool(profile.localhost_profile):
        found.add(
            f"{field}.seccomp_profile.localhost_profile",
            "required",
            "is required with Localhost, and only allowed with it",
        )
