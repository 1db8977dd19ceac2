"""One container of a pod: its environment, probes, resources, rights and mounts.

Main and init containers share nearly all of it, as they do in Kubernetes. What Kubernetes offers and the
platform does not (`envFrom`, `lifecycle`, `workingDir` …) is never named here: `Fields` reports whatever
nobody reads. Only fields that are accepted at their default appear by name, because manifests written out by
tools state them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.apply.fields import Fields, Item

_INT64_MAXIMUM = 2**63 - 1
_QUANTITY = re.compile(r"\+?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?")


def quantity(fields: Fields, name: str) -> str:
    """A Kubernetes quantity as written; empty if it is absent."""
    text = fields.scalar_text(name)
    if text and not _QUANTITY.fullmatch(text):
        message = f"expected a quantity such as 100m, 0.5, 64Mi, found {text!r}"
        fields.reporter.invalid(fields.place_of(name), fields.path_of(name), message)
        return ""
    return text


def command_and_image(fields: Fields, container: pb.Container | pb.InitContainer) -> None:
    """Image, pull policy, command, arguments, and what must be as Kubernetes has it by default."""
    container.image = fields.text("image", required=True)
    container.image_pull_policy = fields.choice("imagePullPolicy", "Always", "IfNotPresent", "Never")
    container.command.extend(fields.texts("command"))
    container.args.extend(fields.texts("args"))
    fields.only_default("terminationMessagePath", "/dev/termination-log")
    fields.only_default("terminationMessagePolicy", "File")
    for name in ("stdin", "stdinOnce", "tty"):
        fields.only_default(name, "false")


def environment(fields: Fields) -> list[pb.EnvVar]:
    """The variables, in order: `$(NAME)` refers to earlier ones."""
    variables: list[pb.EnvVar] = []
    seen: set[str] = set()
    for item in fields.items("env"):
        with item.fields() as entry:
            variable = _variable(entry)
        if variable is None:
            continue
        if variable.name in seen:
            item.invalid(f"expected each variable once, found {variable.name!r} again")
        seen.add(variable.name)
        variables.append(variable)
    return variables


def _variable(entry: Fields) -> pb.EnvVar | None:
    name = entry.text("name", required=True)
    literal = entry.text("value")
    source = entry.item("valueFrom")
    if source is None:
        return pb.EnvVar(name=name, value=literal, value_from=pb.ENV_VALUE_FROM_LITERAL)
    if literal:
        entry.reporter.invalid(source.place, source.path, "expected either value or valueFrom, found both")
    with source.fields() as fields:
        known = [each for each in ("fieldRef", "configMapKeyRef", "secretKeyRef") if fields.has(each)]
        if len(known) > 1:
            message = f"expected one source, found {' and '.join(known)}"
            entry.reporter.invalid(source.place, source.path, message)
        if fields.has("fieldRef"):
            with fields.fields("fieldRef") as reference:
                reference.only_default("apiVersion", "v1")
                path = reference.text("fieldPath", required=True)
            return pb.EnvVar(name=name, value_from=pb.ENV_VALUE_FROM_FIELD_REF, source_key=path)
        for key, kind in (
            ("configMapKeyRef", pb.ENV_VALUE_FROM_CONFIG_MAP),
            ("secretKeyRef", pb.ENV_VALUE_FROM_SECRET),
        ):
            if not fields.has(key):
                continue
            with fields.fields(key) as reference:
                return pb.EnvVar(
                    name=name,
                    value_from=kind,
                    source_name=reference.text("name", required=True),
                    source_key=reference.text("key", required=True),
                    optional=bool(reference.boolean("optional")),
                )
        if not fields.names():
            entry.reporter.invalid(source.place, source.path, "expected a source, found none")
    return None


def resources(fields: Fields) -> pb.Resources | None:
    """Requests and limits of cpu and memory; None if nothing is said."""
    with (
        fields.fields("resources") as stated,
        stated.fields("requests") as requests,
        stated.fields("limits") as limits,
    ):
        result = pb.Resources(
            cpu_request=quantity(requests, "cpu"),
            cpu_limit=quantity(limits, "cpu"),
            memory_request=quantity(requests, "memory"),
            memory_limit=quantity(limits, "memory"),
        )
    return result if result.ByteSize() else None


class MountedAs(Protocol):
    """What a volume of the pod is called on the platform, and whether all its mounts are read-only."""

    @property
    def name(self) -> str: ...
    @property
    def read_only(self) -> bool: ...


def mounts(fields: Fields, volumes: Mapping[str, MountedAs | None]) -> list[pb.VolumeMount]:
    """Where volumes appear. `volumes` are those of the pod, None for those that were reported."""
    result: list[pb.VolumeMount] = []
    for item in fields.items("volumeMounts"):
        with item.fields() as entry:
            entry.only_default("mountPropagation", "None")
            entry.only_default("recursiveReadOnly", "Disabled")
            name = entry.text("name", required=True)
            mount = pb.VolumeMount(
                mount_path=entry.text("mountPath", required=True),
                read_only=bool(entry.boolean("readOnly")),
                sub_path=entry.text("subPath"),
            )
        volume = volumes.get(name)
        if volume is not None:
            mount.volume, mount.read_only = volume.name, mount.read_only or volume.read_only
            result.append(mount)
        elif name in volumes:
            item.unsupported(f"mounts the volume {name!r}, which cannot be represented")
        elif name:
            item.invalid(f"expected the name of a volume of the pod, found {name!r}")
        else:
            result.append(mount)
    return result


def probes(fields: Fields) -> pb.Probes | None:
    """The three probes; None if there is none."""
    result = pb.Probes()
    for key, target in (
        ("livenessProbe", result.liveness),
        ("readinessProbe", result.readiness),
        ("startupProbe", result.startup),
    ):
        with fields.fields(key) as stated:
            if stated.names():
                _probe(stated, target)
    return result if result.ByteSize() else None


def _probe(stated: Fields, probe: pb.Probe) -> None:
    handlers = [name for name in ("httpGet", "tcpSocket", "exec", "grpc") if stated.has(name)]
    if len(handlers) != 1:
        found = " and ".join(handlers) or "none"
        message = f"expected one of httpGet, tcpSocket, exec, grpc, found {found}"
        stated.reporter.invalid(stated.place, stated.path, message)
    if stated.has("httpGet"):
        with stated.fields("httpGet") as action:
            port = action.number_or_name("port", required=True)
            probe.http_get.CopyFrom(
                pb.HttpGetAction(
                    path=action.text("path"),
                    port=port if isinstance(port, int) else 0,
                    port_name=port if isinstance(port, str) else "",
                    scheme=action.choice("scheme", "HTTP", "HTTPS"),
                    host=action.text("host"),
                    http_headers=[_header(item) for item in action.items("httpHeaders")],
                )
            )
    if stated.has("tcpSocket"):
        with stated.fields("tcpSocket") as action:
            port = action.number_or_name("port", required=True)
            probe.tcp_socket.CopyFrom(
                pb.TcpSocketAction(
                    port=port if isinstance(port, int) else 0,
                    port_name=port if isinstance(port, str) else "",
                    host=action.text("host"),
                )
            )
    if stated.has("exec"):
        with stated.fields("exec") as action:
            probe.exec.CopyFrom(pb.ExecAction(command=action.texts("command")))
    if stated.has("grpc"):
        with stated.fields("grpc") as action:
            port_number = action.integer("port", minimum=1, maximum=65535, required=True)
            probe.grpc.CopyFrom(pb.GrpcAction(port=port_number or 0, service=action.text("service")))
    probe.initial_delay_seconds = stated.integer("initialDelaySeconds") or 0
    probe.period_seconds = stated.integer("periodSeconds") or 0
    probe.timeout_seconds = stated.integer("timeoutSeconds") or 0
    probe.success_threshold = stated.integer("successThreshold") or 0
    probe.failure_threshold = stated.integer("failureThreshold") or 0
    probe.termination_grace_seconds = stated.integer("terminationGracePeriodSeconds", minimum=1) or 0


def _header(item: Item) -> pb.HttpHeader:
    with item.fields() as header:
        return pb.HttpHeader(name=header.text("name", required=True), value=header.text("value"))


def security_context(fields: Fields) -> pb.SecurityContext | None:
    """Rights of the container's processes; None if nothing is said."""
    with fields.fields("securityContext") as stated:
        with stated.fields("capabilities") as capabilities:
            result = pb.SecurityContext(
                run_as_user=stated.integer("runAsUser", maximum=_INT64_MAXIMUM),
                run_as_group=stated.integer("runAsGroup", maximum=_INT64_MAXIMUM),
                run_as_non_root=stated.boolean("runAsNonRoot"),
                allow_privilege_escalation=stated.boolean("allowPrivilegeEscalation"),
                privileged=stated.boolean("privileged"),
                read_only_root_filesystem=stated.boolean("readOnlyRootFilesystem"),
                capabilities_add=capabilities.texts("add"),
                capabilities_drop=capabilities.texts("drop"),
                seccomp_profile=seccomp_profile(stated),
            )
        stated.only_default("procMount", "Default")
    return result if result.ByteSize() else None


def pod_security_context(fields: Fields) -> pb.PodSecurityContext | None:
    """Rights that the pod's containers share; None if nothing is said."""
    with fields.fields("securityContext") as stated:
        groups = [item.integer(0, _INT64_MAXIMUM) for item in stated.items("supplementalGroups")]
        result = pb.PodSecurityContext(
            run_as_user=stated.integer("runAsUser", maximum=_INT64_MAXIMUM),
            run_as_group=stated.integer("runAsGroup", maximum=_INT64_MAXIMUM),
            run_as_non_root=stated.boolean("runAsNonRoot"),
            fs_group=stated.integer("fsGroup", maximum=_INT64_MAXIMUM),
            fs_group_change_policy=stated.choice("fsGroupChangePolicy", "OnRootMismatch", "Always"),
            supplemental_groups=[group for group in groups if group is not None],
            seccomp_profile=seccomp_profile(stated),
        )
        stated.only_default("supplementalGroupsPolicy", "Merge")
    return result if result.ByteSize() else None


def seccomp_profile(fields: Fields) -> pb.SeccompProfile | None:
    """Which system calls may be used; None if nothing is said."""
    with fields.fields("seccompProfile") as stated:
        if not stated.names():
            return None
        if not stated.has("type"):
            stated.reporter.invalid(stated.place, stated.path_of("type"), "expected a value, found none")
        return pb.SeccompProfile(
            type=stated.choice("type", "RuntimeDefault", "Unconfined", "Localhost"),
            localhost_profile=stated.text("localhostProfile"),
        )


def init_container(item: Item, volumes: Mapping[str, MountedAs | None]) -> pb.InitContainer:
    """A container that runs before the main one, and to its end."""
    with item.fields() as fields:
        result = pb.InitContainer(
            name=fields.text("name", required=True),
            env=environment(fields),
            volume_mounts=mounts(fields, volumes),
            resources=resources(fields),
            security_context=security_context(fields),
        )
        command_and_image(fields, result)
    return result
