"""What both messages have in common."""

from __future__ import annotations

from typing import Any

from pilothouse_server.config.model import Config
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import etag


def common_fields(value: Config) -> dict[str, Any]:
    """The fields that stand under the same names in both messages."""
    return {
        "name": value.name,
        "namespace": value.namespace,
        "uid": value.uid,
        "immutable": value.immutable,
        "labels": value.labels,
        "annotations": value.annotations,
        "kubernetes_name": value.kubernetes_name,
        "conditions": wire.conditions(value.conditions),
        "create_time": wire.timestamp(value.created_at),
        "update_time": wire.timestamp(value.updated_at),
        "delete_time": wire.timestamp(value.deletion_requested_at),
        "created_by": value.created_by,
        "etag": etag(value.uid, value.resource_version),
        "generation": value.generation,
        "observed_generation": value.observed_generation,
        "reconciling": value.reconciling,
    }
