"""From values to protobuf."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.containers import model
from pilothouse_server.containers.messages import words
from pilothouse_server.containers.volume_attachment import volumes_attachable
from pilothouse_server.rpc import wire


def container(value: model.Container, now: datetime | None = None) -> pb.Container:
    """A container as protobuf; `uptime` is counted to `now`."""
    observed, spec, resources = value.observed, value.spec, value.resources
    attachable = volumes_attachable(value)
    message = pb.Container(
        name=value.name,
        display_name=value.display_name,
        namespace=value.namespace,
        uid=value.uid,
        image=value.image,
        command=spec.command,
        args=spec.args,
        env=[_env(item) for item in value.env],
        ports=[_port(item) for item in value.ports],
        volume_mounts=[_mount(item) for item in value.volume_mounts],
        empty_dirs=[
            pb.EmptyDir(name=item.name, medium=item.medium, size_limit=item.size_limit)
            for item in spec.empty_dirs
        ],
        resources=_resources(resources),
        replicas=value.replicas,
        labels=value.labels,
        annotations=value.annotations,
        probes=_probes(spec.probes),
        security_context=_security(spec.security_context),
        pod_security_context=_pod_security(spec.pod_security_context),
        init_containers=[_init(item) for item in spec.init_containers],
        service_account=spec.service_account,
        image_pull_secrets=spec.image_pull_secrets,
        node_selector=spec.node_selector,
        tolerations=[
            pb.Toleration(
                key=item.key,
                operator=item.operator,
                value=item.value,
                effect=item.effect,
                toleration_seconds=item.toleration_seconds,
            )
            for item in spec.tolerations
        ],
        termination_grace_seconds=spec.termination_grace_seconds,
        drift_policy=words.DRIFT[value.drift_policy],
        image_pull_policy=spec.image_pull_policy,
        pod_container_name=spec.pod_container_name,
        status=words.STATUS[observed.status],
        phase=observed.phase,
        reason=observed.reason,
        message=observed.message,
        conditions=wire.conditions((*observed.conditions, *((attachable,) if attachable else ()))),
        ready_replicas=observed.ready_replicas,
        kubernetes_name=value.kubernetes_name,
        deployment_name=observed.deployment_name,
        replica_set_name=observed.replica_set_name,
        pod_name=observed.pod_name,
        pod_ip=observed.pod_ip,
        host_ip=observed.host_ip,
        restart_count=observed.restart_count,
        started_at=wire.timestamp(observed.started_at),
        finished_at=wire.timestamp(observed.finished_at),
        create_time=wire.timestamp(value.created_at),
        update_time=wire.timestamp(value.updated_at),
        created_by=value.created_by,
        etag=wire.etag(value.uid, value.resource_version),
        generation=value.generation,
        observed_generation=value.observed_generation,
        reconciling=value.reconciling,
        stale_since=wire.timestamp(observed.stale_since),
        delete_time=wire.timestamp(value.deletion_requested_at),
    )
    if observed.status == "running" and observed.started_at is not None:
        uptime = Duration()
        # The cluster says when it started: by a clock that may be ahead.
        uptime.FromTimedelta(max(timedelta(0), (now or datetime.now(UTC)) - observed.started_at))
        message.uptime.CopyFrom(uptime)
    return message


def render(value: model.Container) -> bytes:
    """A container as an event holds it."""
    return container(value).SerializeToString()


def status_change(value: model.StatusChange) -> pb.StatusChange:
    """One row of the history as protobuf."""
    return pb.StatusChange(
        previous_status=words.STATUS[value.previous] if value.previous else pb.CONTAINER_STATUS_UNSPECIFIED,
        current_status=words.STATUS[value.current],
        reason=value.reason,
        message=value.message,
        change_time=wire.timestamp(value.changed_at),
        triggered_by=value.triggered_by,
        username=value.username,
        operation_id=value.operation_id,
    )


def image(value: model.Image) -> pb.Image:
    """An image as protobuf."""
    return pb.Image(
        image=value.image,
        repository=value.repository,
        name=value.name,
        tag=value.tag,
        digest=value.digest,
        size_bytes=value.size_bytes,
        architecture=value.architecture,
        os=value.os,
        status=words.IMAGE_STATUS[value.status],
        create_time=wire.timestamp(value.created_at),
        pull_time=wire.timestamp(value.pulled_at),
        container_count=value.container_count,
    )


def _env(value: model.EnvVar) -> pb.EnvVar:
    return pb.EnvVar(
        name=value.name,
        value=value.value,
        value_from=words.VALUE_FROM[value.value_from],
        source_name=value.source_name,
        source_key=value.source_key,
        optional=value.optional,
    )


def _port(value: model.Port) -> pb.Port:
    return pb.Port(
        name=value.name,
        container_port=value.container_port,
        host_port=value.host_port or 0,
        protocol=pb.PROTOCOL_UDP if value.protocol == "UDP" else pb.PROTOCOL_TCP,
        service_name=value.service_name,
        service_port=value.service_port or 0,
        node_port=value.node_port or 0,
        service_type=words.SERVICE_TYPE[value.service_type],
        app_protocol=value.app_protocol,
    )


def _mount(value: model.VolumeMount) -> pb.VolumeMount:
    return pb.VolumeMount(
        volume=value.volume, mount_path=value.mount_path, read_only=value.read_only, sub_path=value.sub_path
    )


def _resources(value: model.Resources) -> pb.Resources | None:
    if value == model.Resources():
        return None
    return pb.Resources(
        cpu_request=value.cpu_request,
        cpu_limit=value.cpu_limit,
        memory_request=value.memory_request,
        memory_limit=value.memory_limit,
    )


def _probes(value: model.Probes) -> pb.Probes | None:
    if value == model.Probes():
        return None
    return pb.Probes(
        liveness=_probe(value.liveness), readiness=_probe(value.readiness), startup=_probe(value.startup)
    )


def _probe(value: model.Probe | None) -> pb.Probe | None:
    if value is None:
        return None
    return pb.Probe(
        initial_delay_seconds=value.initial_delay_seconds,
        period_seconds=value.period_seconds,
        timeout_seconds=value.timeout_seconds,
        success_threshold=value.success_threshold,
        failure_threshold=value.failure_threshold,
        termination_grace_seconds=value.termination_grace_seconds,
        **_handler(value.handler),
    )


def _handler(value: model.HttpGet | model.TcpSocket | model.Exec | model.Grpc) -> dict[str, Any]:
    match value:
        case model.HttpGet():
            headers = [pb.HttpHeader(name=item.name, value=item.value) for item in value.http_headers]
            return {
                "http_get": pb.HttpGetAction(
                    path=value.path,
                    port=value.port,
                    port_name=value.port_name,
                    scheme=value.scheme,
                    host=value.host,
                    http_headers=headers,
                )
            }
        case model.TcpSocket():
            action = pb.TcpSocketAction(port=value.port, port_name=value.port_name, host=value.host)
            return {"tcp_socket": action}
        case model.Exec():
            return {"exec": pb.ExecAction(command=value.command)}
        case model.Grpc():
            return {"grpc": pb.GrpcAction(port=value.port, service=value.service)}


def _seccomp(value: model.SeccompProfile | None) -> pb.SeccompProfile | None:
    if value is None:
        return None
    return pb.SeccompProfile(type=value.type, localhost_profile=value.localhost_profile)


def _security(value: model.SecurityContext | None) -> pb.SecurityContext | None:
    if value is None:
        return None
    return pb.SecurityContext(
        run_as_user=value.run_as_user,
        run_as_group=value.run_as_group,
        run_as_non_root=value.run_as_non_root,
        allow_privilege_escalation=value.allow_privilege_escalation,
        privileged=value.privileged,
        read_only_root_filesystem=value.read_only_root_filesystem,
        capabilities_add=value.capabilities_add,
        capabilities_drop=value.capabilities_drop,
        seccomp_profile=_seccomp(value.seccomp_profile),
    )


def _pod_security(value: model.PodSecurityContext | None) -> pb.PodSecurityContext | None:
    if value is None:
        return None
    return pb.PodSecurityContext(
        run_as_user=value.run_as_user,
        run_as_group=value.run_as_group,
        run_as_non_root=value.run_as_non_root,
        fs_group=value.fs_group,
        fs_group_change_policy=value.fs_group_change_policy,
        supplemental_groups=value.supplemental_groups,
        seccomp_profile=_seccomp(value.seccomp_profile),
    )


def _init(value: model.InitContainer) -> pb.InitContainer:
    return pb.InitContainer(
        name=value.name,
        image=value.image,
        command=value.command,
        args=value.args,
        env=[_env(item) for item in value.env],
        volume_mounts=[_mount(item) for item in value.volume_mounts],
        resources=_resources(value.resources),
        security_context=_security(value.security_context),
        image_pull_policy=value.image_pull_policy,
    )
