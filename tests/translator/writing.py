"""Writes a container as the Deployment that it was made from: the inverse of `apply`'s conversion, for tests only.

It shares no code with the conversion, so a field that the conversion loses is missing here. Labels and annotations
appear on both the Deployment and its pods, as the platform sets them; ports are the ones that the pod declares.
"""

from __future__ import annotations

from typing import Any

from pilothouse.container.v1 import container_pb2 as pb

_SERVICE_FREE = pb.SERVICE_TYPE_NONE


def manifest_of(container: pb.Container) -> dict[str, Any]:
    labelled = _said({"labels": dict(container.labels), "annotations": dict(container.annotations)})
    spec: dict[str, Any] = {
        "selector": {"matchLabels": dict(container.labels)},
        "template": {"metadata": labelled, "spec": _pod(container)},
    }
    if container.HasField("replicas"):
        spec["replicas"] = container.replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": container.name, **labelled},
        "spec": spec,
    }


def _pod(container: pb.Container) -> dict[str, Any]:
    main = {
        "name": container.pod_container_name,
        **_program(container),
        "ports": [_port(port) for port in container.ports if port.service_type == _SERVICE_FREE],
    }
    pod = {
        "containers": [_said(main), *(_other(each) for each in container.sidecars)],
        "volumes": [
            {"name": each.name, "emptyDir": _said({"medium": each.medium, "sizeLimit": each.size_limit})}
            for each in container.empty_dirs
        ],
        "initContainers": [
            _other(each) | _said({"restartPolicy": each.restart_policy}) for each in container.init_containers
        ],
        "serviceAccountName": container.service_account,
        "imagePullSecrets": [{"name": each} for each in container.image_pull_secrets],
        "priorityClassName": container.priority_class,
        "nodeSelector": dict(container.node_selector),
        "tolerations": [_toleration(each) for each in container.tolerations],
        "securityContext": _rights(container.pod_security_context),
    }
    stated = _said(pod)
    if container.HasField("termination_grace_seconds"):
        stated["terminationGracePeriodSeconds"] = container.termination_grace_seconds
    return stated


def _other(program: pb.Program | pb.InitContainer) -> dict[str, Any]:
    ports = [_port(port) for port in program.ports]
    return _said({"name": program.name, **_program(program), "ports": ports})


def _program(container: pb.Container | pb.Program | pb.InitContainer) -> dict[str, Any]:
    resources = container.resources
    return {
        "image": container.image,
        "command": list(container.command),
        "args": list(container.args),
        "imagePullPolicy": container.image_pull_policy,
        "env": [_variable(each) for each in container.env],
        "resources": _said(
            {
                "requests": _said({"cpu": resources.cpu_request, "memory": resources.memory_request}),
                "limits": _said({"cpu": resources.cpu_limit, "memory": resources.memory_limit}),
            }
        ),
        "securityContext": _rights(container.security_context),
        "livenessProbe": _probe(container.probes.liveness),
        "readinessProbe": _probe(container.probes.readiness),
        "startupProbe": _probe(container.probes.startup),
        "lifecycle": _said(
            {
                "postStart": _hook(container.lifecycle.post_start),
                "preStop": _hook(container.lifecycle.pre_stop),
            }
        ),
        "volumeMounts": [
            _said(
                {
                    "name": each.volume,
                    "mountPath": each.mount_path,
                    "readOnly": each.read_only,
                    "subPath": each.sub_path,
                }
            )
            for each in container.volume_mounts
        ],
    }


def _variable(variable: pb.EnvVar) -> dict[str, Any]:
    if variable.value_from == pb.ENV_VALUE_FROM_LITERAL:
        return {"name": variable.name, "value": variable.value}
    if variable.value_from == pb.ENV_VALUE_FROM_FIELD_REF:
        return {"name": variable.name, "valueFrom": {"fieldRef": {"fieldPath": variable.source_key}}}
    kind = "secretKeyRef" if variable.value_from == pb.ENV_VALUE_FROM_SECRET else "configMapKeyRef"
    source = {"name": variable.source_name, "key": variable.source_key, "optional": variable.optional}
    return {"name": variable.name, "valueFrom": {kind: _said(source)}}


def _port(port: pb.Port | pb.ProgramPort) -> dict[str, Any]:
    protocol = "UDP" if port.protocol == pb.PROTOCOL_UDP else "TCP"
    stated = {"name": port.name, "containerPort": port.container_port, "hostPort": port.host_port}
    return {**_said(stated), "protocol": protocol}


def _probe(probe: pb.Probe) -> dict[str, Any]:
    handler: dict[str, Any] = {}
    if probe.HasField("http_get"):
        handler["httpGet"] = _request(probe.http_get)
    if probe.HasField("tcp_socket"):
        socket = probe.tcp_socket
        handler["tcpSocket"] = _said({"port": socket.port or socket.port_name, "host": socket.host})
    if probe.HasField("exec"):
        handler["exec"] = {"command": list(probe.exec.command)}
    if probe.HasField("grpc"):
        handler["grpc"] = _said({"port": probe.grpc.port, "service": probe.grpc.service})
    return handler | _said(
        {
            "initialDelaySeconds": probe.initial_delay_seconds,
            "periodSeconds": probe.period_seconds,
            "timeoutSeconds": probe.timeout_seconds,
            "successThreshold": probe.success_threshold,
            "failureThreshold": probe.failure_threshold,
            "terminationGracePeriodSeconds": probe.termination_grace_seconds,
        }
    )


def _hook(hook: pb.LifecycleHandler) -> dict[str, Any]:
    if hook.HasField("http_get"):
        return {"httpGet": _request(hook.http_get)}
    if hook.HasField("sleep"):
        return {"sleep": {"seconds": hook.sleep.seconds}}
    return {"exec": {"command": list(hook.exec.command)}} if hook.HasField("exec") else {}


def _request(action: pb.HttpGetAction) -> dict[str, Any]:
    return _said(
        {
            "path": action.path,
            "port": action.port or action.port_name,
            "scheme": action.scheme,
            "host": action.host,
            "httpHeaders": [{"name": each.name, "value": each.value} for each in action.http_headers],
        }
    )


def _rights(rights: pb.SecurityContext | pb.PodSecurityContext) -> dict[str, Any]:
    stated: dict[str, Any] = {}
    for field, value in rights.ListFields():
        words = field.name.split("_")
        stated[words[0] + "".join(word.capitalize() for word in words[1:])] = value
    capabilities = {
        name: list(stated.pop(key))
        for name, key in (("add", "capabilitiesAdd"), ("drop", "capabilitiesDrop"))
        if key in stated
    }
    if capabilities:
        stated["capabilities"] = capabilities
    if "supplementalGroups" in stated:
        stated["supplementalGroups"] = list(stated["supplementalGroups"])
    if "seccompProfile" in stated:
        profile = rights.seccomp_profile
        stated["seccompProfile"] = _said(
            {"type": profile.type, "localhostProfile": profile.localhost_profile}
        )
    return stated


def _toleration(toleration: pb.Toleration) -> dict[str, Any]:
    stated = _said(
        {
            "key": toleration.key,
            "operator": toleration.operator,
            "value": toleration.value,
            "effect": toleration.effect,
        }
    )
    if toleration.HasField("toleration_seconds"):
        stated["tolerationSeconds"] = toleration.toleration_seconds
    return stated


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in ("", 0, False, None, [], {})}
