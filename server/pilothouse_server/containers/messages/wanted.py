"""From protobuf to what a caller wants; what only the server sets is left at its default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.containers import model
from pilothouse_server.containers.messages import words
from pilothouse_server.errors import invalid
from pilothouse_server.values.resources import ContainerId

STATUS_OF = words.STATUS_OF

# Where each field of the message lies in the value: on the container itself, or in its document.
_OF_SPEC = {
    "command", "args", "empty_dirs", "probes", "security_context", "pod_security_context", "init_containers",
    "service_account", "node_selector", "tolerations", "termination_grace_seconds", "image_pull_policy",
    "image_pull_secrets",
}  # fmt: skip
_OF_CONTAINER = {
    "display_name", "image", "env", "ports", "volume_mounts", "resources", "replicas", "labels", "annotations",
    "drift_policy",
}  # fmt: skip
_PARTS = {
    "resources": ("cpu_request", "cpu_limit", "memory_request", "memory_limit"),
    "probes": ("liveness", "readiness", "startup"),
}
UPDATABLE = frozenset(
    _OF_SPEC | _OF_CONTAINER | {f"{name}.{part}" for name, parts in _PARTS.items() for part in parts}
)


def wanted(message: pb.Container) -> model.Container:
    """The container that a caller asks for."""
    return model.Container(
        id=ContainerId(0),
        uid="",
        name=message.name,
        kubernetes_name="",
        image=message.image,
        display_name=message.display_name,
        env=_env(message.env),
        ports=tuple(_port(item) for item in message.ports),
        volume_mounts=_mounts(message.volume_mounts),
        resources=_resources(message.resources),
        replicas=message.replicas if message.HasField("replicas") else 1,
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        spec=_spec(message),
        drift_policy=words.DRIFT_OF.get(message.drift_policy, "repair"),
    )


def merger(message: pb.Container, paths: Sequence[str]) -> Callable[[model.Container], model.Container]:
    """A function that takes the fields named by `paths` over into a stored container."""
    asked = wanted(message)

    def merge(stored: model.Container) -> model.Container:
        of_container: dict[str, Any] = {}
        of_spec: dict[str, Any] = {}
        for path in paths:
            name, _, part = path.partition(".")
            source, target, held = (
                (asked.spec, of_spec, stored.spec) if name in _OF_SPEC else (asked, of_container, stored)
            )
            value = getattr(source, name)
            if part:
                whole = target.get(name, getattr(held, name))
                value = msgspec.structs.replace(whole, **{part: getattr(value, part)})
            target[name] = value
        if of_spec:
            of_container["spec"] = msgspec.structs.replace(stored.spec, **of_spec)
        return msgspec.structs.replace(stored, **of_container)

    return merge


def _spec(message: pb.Container) -> model.ContainerSpec:
    return model.ContainerSpec(
        command=tuple(message.command),
        args=tuple(message.args),
        empty_dirs=tuple(
            model.EmptyDir(item.name, item.medium, item.size_limit) for item in message.empty_dirs
        ),
        probes=model.Probes(
            liveness=_probe(message.probes, "liveness"),
            readiness=_probe(message.probes, "readiness"),
            startup=_probe(message.probes, "startup"),
        ),
        security_context=_security(message),
        pod_security_context=_pod_security(message),
        init_containers=tuple(_init(item) for item in message.init_containers),
        service_account=message.service_account,
        node_selector=dict(message.node_selector),
        tolerations=tuple(_toleration(item) for item in message.tolerations),
        termination_grace_seconds=_optional(message, "termination_grace_seconds"),
        image_pull_policy=message.image_pull_policy,
        image_pull_secrets=tuple(message.image_pull_secrets),
        pod_container_name=message.pod_container_name or "main",
    )


def _optional(message: Any, name: str) -> Any:
    """The value of a field that may be unset; None then."""
    return getattr(message, name) if message.HasField(name) else None


def _env(items: Any) -> tuple[model.EnvVar, ...]:
    return tuple(
        model.EnvVar(
            name=item.name,
            value=item.value,
            value_from=words.VALUE_FROM_OF.get(item.value_from, "literal"),
            source_name=item.source_name,
            source_key=item.source_key,
            optional=item.optional,
        )
        for item in items
    )


def _port(item: pb.Port) -> model.Port:
    return model.Port(
        container_port=item.container_port,
        name=item.name,
        host_port=item.host_port or None,
        protocol="UDP" if item.protocol == pb.PROTOCOL_UDP else "TCP",
        service_name=item.service_name,
        service_port=item.service_port or None,
        node_port=item.node_port or None,
        service_type=words.SERVICE_TYPE_OF.get(item.service_type, "ClusterIP"),
        app_protocol=item.app_protocol,
    )


def _mounts(items: Any) -> tuple[model.VolumeMount, ...]:
    return tuple(
        model.VolumeMount(item.volume, item.mount_path, item.read_only, item.sub_path) for item in items
    )


def _resources(item: pb.Resources) -> model.Resources:
    return model.Resources(item.cpu_request, item.cpu_limit, item.memory_request, item.memory_limit)


def _probe(probes: pb.Probes, kind: str) -> model.Probe | None:
    if not probes.HasField(kind):  # type: ignore[arg-type]
        return None
    item: pb.Probe = getattr(probes, kind)
    return model.Probe(
        handler=_handler(item, f"container.probes.{kind}"),
        initial_delay_seconds=item.initial_delay_seconds,
        period_seconds=item.period_seconds,
        timeout_seconds=item.timeout_seconds,
        success_threshold=item.success_threshold,
        failure_threshold=item.failure_threshold,
        termination_grace_seconds=item.termination_grace_seconds,
    )


def _handler(item: pb.Probe, field: str) -> model.HttpGet | model.TcpSocket | model.Exec | model.Grpc:
    match item.WhichOneof("handler"):
        case "http_get":
            action = item.http_get
            return model.HttpGet(
                path=action.path or "/",
                port=action.port,
                port_name=action.port_name,
                scheme=action.scheme or "HTTP",
                host=action.host,
                http_headers=tuple(
                    model.HttpHeader(header.name, header.value) for header in action.http_headers
                ),
            )
        case "tcp_socket":
            return model.TcpSocket(item.tcp_socket.port, item.tcp_socket.port_name, item.tcp_socket.host)
        case "exec":
            return model.Exec(tuple(item.exec.command))
        case "grpc":
            return model.Grpc(item.grpc.port, item.grpc.service)
    raise invalid(field, "one of http_get, tcp_socket, exec, grpc must be set", reason="REQUIRED")


def _seccomp(message: Any) -> model.SeccompProfile | None:
    if not message.HasField("seccomp_profile"):
        return None
    return model.SeccompProfile(message.seccomp_profile.type, message.seccomp_profile.localhost_profile)


def _security(message: Any) -> model.SecurityContext | None:
    if not message.HasField("security_context"):
        return None
    item = message.security_context
    return model.SecurityContext(
        run_as_user=_optional(item, "run_as_user"),
        run_as_group=_optional(item, "run_as_group"),
        run_as_non_root=_optional(item, "run_as_non_root"),
        allow_privilege_escalation=_optional(item, "allow_privilege_escalation"),
        privileged=_optional(item, "privileged"),
        read_only_root_filesystem=_optional(item, "read_only_root_filesystem"),
        capabilities_add=tuple(item.capabilities_add),
        capabilities_drop=tuple(item.capabilities_drop),
        seccomp_profile=_seccomp(item),
    )


def _pod_security(message: pb.Container) -> model.PodSecurityContext | None:
    if not message.HasField("pod_security_context"):
        return None
    item = message.pod_security_context
    return model.PodSecurityContext(
        run_as_user=_optional(item, "run_as_user"),
        run_as_group=_optional(item, "run_as_group"),
        run_as_non_root=_optional(item, "run_as_non_root"),
        fs_group=_optional(item, "fs_group"),
        fs_group_change_policy=item.fs_group_change_policy,
        supplemental_groups=tuple(item.supplemental_groups),
        seccomp_profile=_seccomp(item),
    )


def _toleration(item: pb.Toleration) -> model.Toleration:
    return model.Toleration(
        item.key, item.operator, item.value, item.effect, _optional(item, "toleration_seconds")
    )


def _init(item: pb.InitContainer) -> model.InitContainer:
    return model.InitContainer(
        name=item.name,
        image=item.image,
        command=tuple(item.command),
        args=tuple(item.args),
        env=_env(item.env),
        volume_mounts=_mounts(item.volume_mounts),
        resources=_resources(item.resources),
        security_context=_security(item),
        image_pull_policy=item.image_pull_policy,
    )
