"""From a container to its pod's spec: the part of `manifests` that knows pods.

Nothing said is nothing sent: empty text, empty lists and zero numbers of a probe leave the field to the API's default
(and to other field managers). Fields for which empty or false is a statement are `None` in the model when unsaid.

The pods of an imported Deployment keep the names and the order of their volumes, whatever those are called here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pilothouse_server.containers.model import (
    Container,
    EnvVar,
    Exec,
    Grpc,
    HttpGet,
    InitContainer,
    MountedVolume,
    PodSecurityContext,
    Port,
    Probe,
    Resources,
    SeccompProfile,
    SecurityContext,
    TcpSocket,
    Toleration,
    VolumeMount,
)
from pilothouse_server.kubernetes.objects import Manifest


def pod_spec(container: Container) -> Manifest:
    """The pod template's spec."""
    spec, names = container.spec, _pod_names(container)
    return _said(
        {
            "serviceAccountName": spec.service_account,
            "imagePullSecrets": [{"name": name} for name in spec.image_pull_secrets],
            "terminationGracePeriodSeconds": spec.termination_grace_seconds,
            "securityContext": _pod_security_context(spec.pod_security_context),
            "nodeSelector": dict(spec.node_selector),
            "tolerations": [_toleration(toleration) for toleration in spec.tolerations],
            "initContainers": [_init_container(init, names) for init in spec.init_containers],
            "containers": [_main_container(container, names)],
            "volumes": _volumes(container, names),
        }
    )


def _main_container(container: Container, names: Mapping[str, str]) -> Manifest:
    spec = container.spec
    return _said(
        {
            "name": spec.pod_container_name,
            "image": container.image,
            "imagePullPolicy": spec.image_pull_policy,
            "command": list(spec.command),
            "args": list(spec.args),
            "env": _environment(container.env),
            "ports": _container_ports(_declared_ports(container)),
            "resources": _resources(container.resources),
            "volumeMounts": [_mount(mount, names) for mount in container.volume_mounts],
            "livenessProbe": _probe(spec.probes.liveness),
            "readinessProbe": _probe(spec.probes.readiness),
            "startupProbe": _probe(spec.probes.startup),
            "securityContext": _security_context(spec.security_context),
        }
    )


def _init_container(init: InitContainer, names: Mapping[str, str]) -> Manifest:
    return _said(
        {
            "name": init.name,
            "image": init.image,
            "imagePullPolicy": init.image_pull_policy,
            "command": list(init.command),
            "args": list(init.args),
            "env": _environment(init.env),
            "resources": _resources(init.resources),
            "volumeMounts": [_mount(mount, names) for mount in init.volume_mounts],
            "securityContext": _security_context(init.security_context),
        }
    )


def _environment(variables: Iterable[EnvVar]) -> list[Manifest]:
    return [_variable(variable) for variable in variables]


def _variable(variable: EnvVar) -> Manifest:
    if variable.value_from == "literal":
        # An empty value is sent: the variable is then set, and empty.
        return {"name": variable.name, "value": variable.value}
    if variable.value_from == "field_ref":
        # One value to server-side apply: without the version that the API fills in it would be another.
        source: Manifest = {"fieldRef": {"apiVersion": "v1", "fieldPath": variable.source_key}}
    else:
        key = "configMapKeyRef" if variable.value_from == "config_map" else "secretKeyRef"
        source = {key: {"name": variable.source_name, "key": variable.source_key}}
        if variable.optional:
            source[key]["optional"] = True
    return {"name": variable.name, "valueFrom": source}


def _declared_ports(container: Container) -> Iterable[Port]:
    """The ports that the pod declares: all, but of an imported one those that it declared itself."""
    if container.spec.taken_over is None:
        return container.ports
    return (port for port in container.ports if port.service_type == "None")


def _container_ports(ports: Iterable[Port]) -> list[Manifest]:
    """Each (port, protocol) once: the list's key in server-side apply, and one port may stand behind two Services."""
    merged: dict[tuple[int, str], Manifest] = {}
    names: set[str] = set()
    for port in ports:
        entry = merged.setdefault(
            (port.container_port, port.protocol),
            {"containerPort": port.container_port, "protocol": port.protocol},
        )
        # A name must be unique in the pod; on a Service it need not be.
        if port.name and "name" not in entry and port.name not in names:
            entry["name"] = port.name
            names.add(port.name)
        if port.host_port is not None:
            entry.setdefault("hostPort", port.host_port)
    return list(merged.values())


def _resources(resources: Resources) -> Manifest:
    return _said(
        {
            "requests": _said({"cpu": resources.cpu_request, "memory": resources.memory_request}),
            "limits": _said({"cpu": resources.cpu_limit, "memory": resources.memory_limit}),
        }
    )


def _mount(mount: VolumeMount, names: Mapping[str, str]) -> Manifest:
    return _said(
        {
            # One that names nothing is refused by the cluster, in words that name it.
            "name": names.get(mount.volume, mount.volume),
            "mountPath": mount.mount_path,
            "readOnly": mount.read_only or None,
            "subPath": mount.sub_path,
        }
    )


def _volumes(container: Container, names: Mapping[str, str]) -> list[Manifest]:
    sources: dict[str, Manifest] = {
        empty_dir.name: {"emptyDir": _said({"medium": empty_dir.medium, "sizeLimit": empty_dir.size_limit})}
        for empty_dir in container.spec.empty_dirs
    }
    sources |= {volume.name: _volume_source(volume) for volume in container.volumes}
    return [{"name": name, **sources[volume]} for volume, name in names.items()]


def _pod_names(container: Container) -> dict[str, str]:
    """What the volumes are called in the pods, by their names here, in the order of the pods."""
    here = [item.name for item in container.spec.empty_dirs] + [volume.name for volume in container.volumes]
    taken_over = container.spec.taken_over
    brought = () if taken_over is None else taken_over.volumes
    names = {item.volume: item.name for item in brought if item.volume in here}
    for volume in here:
        if volume not in names:
            names[volume] = _free_name(volume, set(names.values()))
    return names


def _free_name(name: str, taken: set[str]) -> str:
    """The name itself, but where an imported pod calls another volume so."""
    numbered = (f"{name[:60].rstrip('-')}-{number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(each for each in numbered if each not in taken)


def _volume_source(volume: MountedVolume) -> Manifest:
    match volume.type:
        case "persistent_volume_claim":
            claim = {"claimName": volume.kubernetes_name, "readOnly": volume.read_only or None}
            return {"persistentVolumeClaim": _said(claim)}
        case "config_map":
            return {"configMap": {"name": volume.source_name}}
        case "secret":
            return {"secret": {"secretName": volume.source_name}}
        case "host_path":
            return {"hostPath": {"path": volume.host_path}}
        case "empty_dir":
            return {"emptyDir": _said({"medium": volume.medium, "sizeLimit": volume.size})}


def _probe(probe: Probe | None) -> Manifest | None:
    if probe is None:
        return None
    return {
        **_handler(probe.handler),
        **_said(
            {
                "initialDelaySeconds": probe.initial_delay_seconds or None,
                "periodSeconds": probe.period_seconds or None,
                "timeoutSeconds": probe.timeout_seconds or None,
                "successThreshold": probe.success_threshold or None,
                "failureThreshold": probe.failure_threshold or None,
                "terminationGracePeriodSeconds": probe.termination_grace_seconds or None,
            }
        ),
    }


def _handler(handler: HttpGet | TcpSocket | Exec | Grpc) -> Manifest:
    match handler:
        case HttpGet():
            headers = [{"name": header.name, "value": header.value} for header in handler.http_headers]
            fields = {
                "path": handler.path,
                "port": handler.port_name or handler.port,
                "scheme": handler.scheme,
                "host": handler.host,
                "httpHeaders": headers,
            }
            return {"httpGet": _said(fields)}
        case TcpSocket():
            return {"tcpSocket": _said({"port": handler.port_name or handler.port, "host": handler.host})}
        case Exec():
            return {"exec": {"command": list(handler.command)}}
        case Grpc():
            return {"grpc": _said({"port": handler.port, "service": handler.service})}


def _security_context(context: SecurityContext | None) -> Manifest | None:
    if context is None:
        return None
    return _said(
        {
            "runAsUser": context.run_as_user,
            "runAsGroup": context.run_as_group,
            "runAsNonRoot": context.run_as_non_root,
            "allowPrivilegeEscalation": context.allow_privilege_escalation,
            "privileged": context.privileged,
            "readOnlyRootFilesystem": context.read_only_root_filesystem,
            "capabilities": _said(
                {"add": list(context.capabilities_add), "drop": list(context.capabilities_drop)}
            ),
            "seccompProfile": _seccomp(context.seccomp_profile),
        }
    )


def _pod_security_context(context: PodSecurityContext | None) -> Manifest | None:
    if context is None:
        return None
    return _said(
        {
            "runAsUser": context.run_as_user,
            "runAsGroup": context.run_as_group,
            "runAsNonRoot": context.run_as_non_root,
            "fsGroup": context.fs_group,
            "fsGroupChangePolicy": context.fs_group_change_policy,
            "supplementalGroups": list(context.supplemental_groups),
            "seccompProfile": _seccomp(context.seccomp_profile),
        }
    )


def _seccomp(profile: SeccompProfile | None) -> Manifest | None:
    if profile is None:
        return None
    return _said({"type": profile.type, "localhostProfile": profile.localhost_profile})


def _toleration(toleration: Toleration) -> Manifest:
    return _said(
        {
            "key": toleration.key,
            "operator": toleration.operator,
            "value": toleration.value,
            "effect": toleration.effect,
            "tolerationSeconds": toleration.toleration_seconds,
        }
    )


def _said(fields: dict[str, Any]) -> Manifest:
    """Leave out what says nothing. False and 0 are statements."""
    return {key: value for key, value in fields.items() if not (value is None or value in ("", {}, []))}
