"""The description of a container: desired and observed values side by side, from its image to the last exit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands.container_columns import last_exit, program_kind, program_state
from pilothouse_client.commands.container_pods import pod_state, ready_programs
from pilothouse_client.commands.description import (
    Description,
    describe_conditions,
    describe_message,
    describe_state,
    pairs_of,
    shortened,
    when,
)
from pilothouse_client.commands.values import age, enum_label

# Fields with lines of their own, here or in the common part; the other fields are added unchanged.
_SHOWN = (
    *("image", "command", "args", "env", "env_from", "ports", "volume_mounts", "resources", "probes"),
    *("empty_dirs", "pod_volumes", "replicas", "labels", "annotations", "pod_labels", "pod_annotations"),
    *(
        "selector",
        "programs",
        "phase",
        "ready_replicas",
        "kubernetes_name",
        "deployment_name",
        "workload_kind",
    ),
    *("replica_set_name", "pod_name", "pod_ip", "host_ip", "restart_count", "started_at", "finished_at"),
    *("uptime", "sidecars", "init_containers", "pod_container_name"),
)
_MOST_PODS = 20


def describe_container(page: Description, container: Any, pods: Sequence[Any]) -> None:
    """Adds the sections about a container, except its events, its changes and its revisions."""
    page.field("Name", container.name)
    page.field("Namespace", container.namespace)
    kind = enum_label(container, "workload_kind").title().replace("_", "")
    page.field("Kind", f"{kind} {container.kubernetes_name}".strip())
    describe_state(page, container)
    page.field("Replicas", _replicas(container))
    for program in _main(container):
        page.field("Last exit", _end(program))
    _describe_program(page, container)
    page.field("Runs", _digests(container, pods))
    page.field("Ports", [_port(each) for each in container.ports])
    page.field("Labels", pairs_of(container.labels))
    if dict(container.pod_labels) != dict(container.labels):
        page.field("Pod labels", pairs_of(container.pod_labels))
    page.field("Annotations", pairs_of(container.annotations))
    page.field("Pod volumes", [_volume(each) for each in container.pod_volumes])
    page.field("Empty dirs", [_empty_dir(each) for each in container.empty_dirs])
    describe_message(page, container, _SHOWN)
    for words, others in (("Sidecar", container.sidecars), ("Init container", container.init_containers)):
        for each in others:
            page.block(f"{words} {each.name}", _lines_of(each))
    _describe_pods(page, pods)
    describe_conditions(page, container.conditions)


def _replicas(container: Any) -> str:
    wanted = f"{container.replicas} wanted" if container.HasField("replicas") else ""
    ready = f"{container.ready_replicas} ready"
    restarts = f"{container.restart_count} restarts" if container.restart_count else ""
    return ", ".join(filter(None, (wanted, ready, restarts)))


def _main(container: Any) -> Iterator[Any]:
    return (each for each in container.programs if each.kind == pb.PROGRAM_KIND_MAIN)


def _end(program: Any) -> str:
    if not program.HasField("exit_code"):
        return ""
    words = f"{program.exit_reason or 'ended'}, exit {program.exit_code}"
    return f"{words}, {when(program.exit_time)}, pod {program.pod}"


def _digests(container: Any, pods: Iterable[Any]) -> list[str]:
    """Returns the digests of the images that run; several while a rollout is in progress."""
    found = dict.fromkeys(pod.image_id for pod in pods if pod.image_id)
    return list(found) or list(dict.fromkeys(each.image_id for each in _main(container)))


def _describe_program(page: Description, program: Any) -> None:
    """Adds the fields that the main program shares with sidecars and init containers."""
    page.field("Image", program.image)
    page.field("Command", shortened(" ".join(program.command)))
    page.field("Arguments", shortened(" ".join(program.args)))
    page.field("Env", [*map(_variable, program.env), *(_source(each) for each in program.env_from)])
    page.field("Mounts", [_mount(each) for each in program.volume_mounts])
    page.field("Resources", _resources(program.resources))
    page.field("Probes", _probes(program.probes))


def _lines_of(program: Any) -> Iterator[tuple[int, str]]:
    inner = Description()
    _describe_program(inner, program)
    for label, lines in inner.fields:
        first = f"{label}:".ljust(12)
        for line in lines:
            yield 1, first + line
            first = " " * 12


def _variable(variable: Any) -> str:
    if variable.value_from in (pb.ENV_VALUE_FROM_UNSPECIFIED, pb.ENV_VALUE_FROM_LITERAL):
        return f"{variable.name}={shortened(variable.value)}"
    source = enum_label(variable, "value_from").lower().replace("_", " ")
    parts = filter(None, (source, variable.source_name, variable.source_key))
    return f"{variable.name} from {' '.join(parts)}{' (optional)' if variable.optional else ''}"


def _source(source: Any) -> str:
    kind = enum_label(source, "value_from").lower().replace("_", " ")
    prefix = f" with the prefix {source.prefix}" if source.prefix else ""
    return f"all keys of {kind} {source.source_name}{prefix}{' (optional)' if source.optional else ''}"


def _port(port: Any) -> str:
    protocol = enum_label(port, "protocol") or "TCP"
    words = f"{port.name} {port.container_port}/{protocol}".strip()
    if port.service_type == pb.SERVICE_TYPE_NONE:
        return f"{words}, creates no Service (other Services may select its pods)"
    kind = enum_label(port, "service_type").title().replace("_", "").replace("Ip", "IP")
    node = f", node port {port.node_port}" if port.node_port else ""
    return f"{words} at {port.service_name}:{port.service_port or port.container_port} ({kind}{node})"


def _mount(mount: Any) -> str:
    folder = f"/{mount.sub_path}" if mount.sub_path else ""
    return f"{mount.mount_path} from {mount.volume}{folder}{' (read-only)' if mount.read_only else ''}"


def _volume(volume: Any) -> str:
    kind = volume.WhichOneof("source") or ""
    source = getattr(volume, kind) if kind else None
    name = getattr(source, "source_name", "") or getattr(source, "claim_name", "")
    return f"{volume.name}: {kind.replace('_', ' ')} {name}".rstrip()


def _empty_dir(folder: Any) -> str:
    return " ".join(filter(None, (folder.name, folder.medium, folder.size_limit)))


def _resources(resources: Any) -> list[str]:
    requests = dict(resources.requests) | _of(resources, "request")
    limits = dict(resources.limits) | _of(resources, "limit")
    return [
        f"{name}: {', '.join(_amounts(requests.get(name), limits.get(name)))}"
        for name in sorted(requests | limits)
    ]


def _amounts(request: str | None, limit: str | None) -> Iterator[str]:
    if request:
        yield f"{request} requested"
    if limit:
        yield f"at most {limit}"


def _of(resources: Any, which: str) -> dict[str, str]:
    found = {name: getattr(resources, f"{name}_{which}") for name in ("cpu", "memory")}
    return {name: amount for name, amount in found.items() if amount}


def _probes(probes: Any) -> list[str]:
    return [f"{field.name}: {_probe(probe)}" for field, probe in probes.ListFields()]


def _probe(probe: Any) -> str:
    kind = probe.WhichOneof("handler")
    if kind == "http_get":
        words = f"GET {probe.http_get.path or '/'} at port {probe.http_get.port or probe.http_get.port_name}"
    elif kind == "tcp_socket":
        words = f"connection to port {probe.tcp_socket.port or probe.tcp_socket.port_name}"
    elif kind == "grpc":
        words = f"gRPC health at port {probe.grpc.port}"
    else:
        words = shortened(" ".join(probe.exec.command))
    return f"{words} every {probe.period_seconds or 10} s, {probe.failure_threshold or 3} failures"


def _describe_pods(page: Description, pods: Sequence[Any]) -> None:
    page.rows(
        "Pods",
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "NODE"],
        (
            (
                pod.name,
                ready_programs(pod),
                pod_state(pod),
                str(pod.restart_count),
                age(pod.create_time),
                pod.node_name,
            )
            for pod in pods[:_MOST_PODS]
        ),
    )
    lines: list[tuple[int, str]] = []
    for pod in pods[:_MOST_PODS]:
        for program in pod.programs:
            if len(pod.programs) < 2 and not last_exit(program):
                continue
            words = f"{pod.name}  {program.name} ({program_kind(program)}): {program_state(program)}"
            ends = last_exit(program)
            ended = f", last exit {ends}, {age(program.exit_time)} ago" if ends else ""
            lines.append((1, f"{words}, {program.restart_count} restarts{ended}"))
            # A back-off's message is the last exit, which the line above already has.
            if program.message and not program.message.startswith("last exit: "):
                lines.append((3, program.message))
    if len(pods) > _MOST_PODS:
        lines.append((1, f"and {len(pods) - _MOST_PODS} more pods: pilothouse containers pods"))
    page.block("Programs", lines)
