"""Computes the observed state of an object from the object on its cluster; pure functions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pilothouse_server.kubernetes.conditions import APPLIED
from pilothouse_server.kubernetes.objects import AnyObject, Manifest
from pilothouse_server.objects import documents, references
from pilothouse_server.objects.health import ReportedHealth, addresses, health
from pilothouse_server.objects.model import CarriedObject, ObjectBackend, ObservedObject
from pilothouse_server.values.resources import Condition

MOST_STATUS_BYTES: Final = 32 * 1024
# Number of ready endpoints by Service name, for the Services of a namespace that the platform manages.
Endpoints = Mapping[str, int]


def observe(
    carried: CarriedObject,
    found: AnyObject | None,
    endpoints: Endpoints,
    conditions: tuple[Condition, ...] | None = None,
) -> ObservedObject:
    """Returns the observed state of an object, given the object `found`. `conditions` replace the stored ones."""
    before = carried.observed
    stated = before.conditions if conditions is None else conditions
    kind = (carried.api_group, carried.kind)
    status = None if found is None else found.status
    backends = _backends(kind, documents.manifest(carried), endpoints)
    shown = msgspec.structs.replace(
        before,
        backends=backends,
        conditions=stated,
        observed_status=status_text(status),
        addresses=before.addresses if kind == references.HTTP_ROUTE else addresses(kind, status),
    )
    seen = _health(carried, found, backends)
    word, reason, message = _status(carried, found, shown)
    if word == "active" and seen.health != "healthy":
        reason, message = seen.reason, seen.message
    return msgspec.structs.replace(shown, status=word, reason=reason, message=message, health=seen.health)


def status_text(status: Any) -> str:
    """Returns a reported status as it is stored: JSON text, or its digest if it is too long."""
    if not status:
        return ""
    text = json.dumps(status, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    if len(text.encode()) <= MOST_STATUS_BYTES:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(
        {"truncated": True, "bytes": len(text.encode()), "sha256": digest}, separators=(",", ":")
    )


def _health(
    carried: CarriedObject, found: AnyObject | None, backends: tuple[ObjectBackend, ...]
) -> ReportedHealth:
    if found is None or carried.deletion_requested_at is not None:
        return ReportedHealth("unknown")
    seen = health((carried.api_group, carried.kind), found.status, found.metadata.generation)
    missing = next((each for each in backends if not each.ready), None)
    if seen.health == "healthy" and missing is not None:
        words = "does not exist" if missing.reason == "ServiceNotFound" else "has no ready pod"
        return ReportedHealth("degraded", missing.reason, f'service "{missing.service}" {words}')
    return seen


def _status(carried: CarriedObject, found: AnyObject | None, shown: ObservedObject) -> tuple[Any, str, str]:
    applied = next((each for each in shown.conditions if each.type == APPLIED), None)
    if carried.deletion_requested_at is not None:
        return "deleted", shown.reason, shown.message
    if applied is not None and applied.status == "False":
        return "failed", applied.reason, applied.message
    if found is None:
        return ("pending", "", "") if applied is None else ("pending", applied.reason, applied.message)
    return "active", "", ""


def _backends(kind: tuple[str, str], document: Manifest, endpoints: Endpoints) -> tuple[ObjectBackend, ...]:
    return tuple(
        ObjectBackend(
            name,
            port,
            ready=endpoints.get(name, 0) > 0,
            reason=""
            if endpoints.get(name, 0) > 0
            else ("NoReadyEndpoints" if name in endpoints else "ServiceNotFound"),
        )
        for name, port in references.backends(kind, document)
    )
