"""Renders a container for the database: its row, environment, ports and mounts.

Mounts of volumes are stored as rows (`container_volumes`) in addition to the document, so that the users of a volume
can be queried.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pilothouse_server.containers.model import Container, EnvVar, Port
from pilothouse_server.values.image_reference import ImageReference


def columns_of(container: Container) -> dict[str, Any]:
    """Returns the desired state of a container, by column."""
    resources = container.resources
    return {
        "display_name": container.display_name or None,
        "cpu_request": resources.request("cpu") or None,
        "cpu_limit": resources.limit("cpu") or None,
        "memory_request": resources.request("memory") or None,
        "memory_limit": resources.limit("memory") or None,
        "labels": container.labels,
        "annotations": container.annotations,
        "spec": _document(container),
        "desired_state": container.desired_state,
        "replicas": container.replicas,
        "drift_policy": container.drift_policy,
        "hold_rollout": container.hold_rollout,
        "restart_requested_at": container.spec.restarted_at,
    }


def _document(container: Container) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(container.spec)
    document["image"] = container.image
    # Written even if they are empty: a document without them was written by a release that did not have them.
    document["pod_labels"] = container.spec.pod_labels
    document["pod_annotations"] = container.spec.pod_annotations
    if container.volume_mounts:
        document["volume_mounts"] = msgspec.to_builtins(container.volume_mounts)
    resources = container.resources
    if amounts := {name: found for name in ("requests", "limits") if (found := getattr(resources, name))}:
        document["resources"] = amounts
    # They belong to the Service and not to a port, so they are stored once per Service.
    annotations = {
        port.service_name: port.service_annotations for port in container.ports if port.service_annotations
    }
    if annotations:
        document["service_annotations"] = annotations
    return document


def image_parts(image: str) -> dict[str, str | None]:
    """Returns the parts of an image's name under which the image is registered."""
    reference = ImageReference.parse(image)
    return {
        "repository": reference.repository or None,
        "name": reference.name,
        "tag": reference.tag or None,
        "digest": reference.digest or None,
    }


def env_row(position: int, variable: EnvVar) -> dict[str, Any]:
    """Returns a row of `environment_variables` without its owner."""
    return {
        "position": position,
        "name": variable.name,
        "value": variable.value if variable.value_from == "literal" else variable.divisor or None,
        "value_from": variable.value_from,
        "source_name": variable.source_name or None,
        "source_key": variable.source_key or None,
        "optional": variable.optional,
        "external": variable.external,
    }


def port_row(port: Port) -> dict[str, Any]:
    """Returns a row of `port_mappings` without its owner."""
    return {
        "name": port.name or None,
        "container_port": port.container_port,
        "host_port": port.host_port,
        "protocol": port.protocol,
        "app_protocol": port.app_protocol or None,
        "service_type": port.service_type,
        "service_name": port.service_name or None,
        "service_port": port.service_port,
        "node_port": port.node_port,
    }
