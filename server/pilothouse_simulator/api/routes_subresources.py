"""The subresources status, scale and finalize, and binding and eviction of pods."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from pilothouse_simulator.admission import validation
from pilothouse_simulator.admission.validation_pods import non_negative
from pilothouse_simulator.api import patch
from pilothouse_simulator.api.context import ApiContext, RequestTarget
from pilothouse_simulator.api.decoding import parse_object
from pilothouse_simulator.api.representation import json_response
from pilothouse_simulator.api.routes_write import (
    APPLY_TYPE,
    PATCH_TYPES,
    apply_object,
    check_name,
    check_namespace,
    decode,
    media_type,
    options_of,
    parse_configuration,
    patched,
    read_body,
    unsupported_patch_type,
)
from pilothouse_simulator.store import field_tracking
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import bad_request
from pilothouse_simulator.values.clock import format_time
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import NAMESPACES, PODS
from pilothouse_simulator.values.selectors import format_label_selector

JsonObject = dict[str, Any]


def current_object(context: ApiContext, target: RequestTarget) -> JsonObject:
    """Returns the object to which a subresource belongs. Raises 404 if it does not exist."""
    obj = context.store.get(target.resource, target.namespace, target.name)
    if obj is None:
        raise api_errors.not_found(target.resource, target.name)
    return obj


async def write_status(context: ApiContext, request: web.Request, target: RequestTarget) -> web.Response:
    """Handles PUT and PATCH of the status subresource; everything except the status is dropped."""
    presenter = context.presenter(request, target)
    resource = target.resource
    if request.method == "PUT":
        options = options_of(request, "UpdateOptions")
        obj, warnings = decode(
            target, await read_body(request), request.headers.get("Content-Type", ""), options
        )
        check_name(target, obj.setdefault("metadata", {}))
        check_namespace(target, obj["metadata"])
    else:
        kind = media_type(request)
        if kind not in PATCH_TYPES:
            raise unsupported_patch_type()
        options = options_of(request, "PatchOptions", applies=kind == APPLY_TYPE)
        body = await read_body(request)
        if kind == APPLY_TYPE:
            stored, _ = apply_object(context, target, body, options, "status")
            return json_response(presenter.one(stored))
        current = current_object(context, target)
        obj, warnings = patched(resource, current, body, kind, options)
        if obj["metadata"].get("uid") != current["metadata"]["uid"]:
            raise validation.immutable_uid(resource, target.name, str(obj["metadata"].get("uid", "")))
    stored = context.store.update_status(resource, obj, options.field_manager, dry_run=options.dry_run)
    return json_response(presenter.one(stored), headers=warnings)


def scale_of(obj: JsonObject) -> JsonObject:
    """Returns the Scale of a workload. Zero replicas are absent from its spec, as in the real API."""
    metadata = {
        name: obj["metadata"][name]
        for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if name in obj["metadata"]
    }
    replicas = obj["spec"].get("replicas", 1)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": replicas} if replicas else {},
        "status": {
            "replicas": obj.get("status", {}).get("replicas", 0),
            "selector": format_label_selector(obj["spec"].get("selector")),
        },
    }


async def handle_scale(context: ApiContext, request: web.Request, target: RequestTarget) -> web.Response:
    """Handles GET, PUT and PATCH of the scale subresource."""
    context.presenter(request, target)
    if request.method == "GET":
        return json_response(scale_of(current_object(context, target)))
    body = await read_body(request)
    if request.method == "PUT":
        options = options_of(request, "UpdateOptions")
        scale, _ = parse_object(body, request.headers.get("Content-Type", ""), "Scale")
        check_name(target, scale.get("metadata") or {})
        obj = copy_json(current_object(context, target))
    else:
        kind = media_type(request)
        if kind not in PATCH_TYPES:
            raise unsupported_patch_type()
        options = options_of(request, "PatchOptions", applies=kind == APPLY_TYPE)
        obj = copy_json(current_object(context, target))
        if kind == APPLY_TYPE:
            return json_response(scale_of(_apply_scale(context, target, body, options.field_manager,
                                                       force=options.force, dry_run=options.dry_run)))  # fmt: skip
        scale = _patched_scale(scale_of(obj), body, kind)
    replicas = (scale.get("spec") or {}).get("replicas", 0) or 0
    _check_replicas(target, replicas)
    sent = scale.get("metadata") or {}
    for name in ("uid", "resourceVersion"):
        if sent.get(name):
            obj["metadata"][name] = sent[name]
        elif name == "resourceVersion":
            obj["metadata"].pop(name, None)
    obj["spec"]["replicas"] = replicas
    stored = context.store.update(
        target.resource, obj, manager=options.field_manager, dry_run=options.dry_run, subresource="scale"
    )
    return json_response(scale_of(stored))


def _patched_scale(scale: JsonObject, body: bytes, kind: str) -> JsonObject:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise bad_request(f"error decoding patch: {error}") from error
    if kind == "application/json-patch+json":
        changed: JsonObject = patch.json_patch(scale, document)
    else:
        changed = patch.merge_patch(scale, document)
    return changed


def _check_replicas(target: RequestTarget, replicas: Any) -> None:
    if isinstance(replicas, bool) or not isinstance(replicas, int):
        raise bad_request("json: cannot unmarshal into Go struct field ScaleSpec.spec.replicas of type int32")
    causes = non_negative(replicas, "spec.replicas")
    if causes:
        raise api_errors.invalid_kind("Scale", "autoscaling", target.name, causes)


def _apply_scale(
    context: ApiContext, target: RequestTarget, body: bytes, manager: str, *, force: bool, dry_run: bool
) -> JsonObject:
    configuration = parse_configuration(target, body, "autoscaling/v1", "Scale")
    live = current_object(context, target)
    replicas = (configuration.get("spec") or {}).get("replicas", 0)
    _check_replicas(target, replicas)
    result = field_tracking.apply_configuration(
        target.resource,
        live,
        {"metadata": {}, "spec": {"replicas": replicas}},
        manager=manager,
        force=force,
        time=format_time(context.store.now()),
        subresource="scale",
        message_version="autoscaling/v1",
    )
    return context.store.update(target.resource, result, dry_run=dry_run)


async def finalize_namespace(
    context: ApiContext, request: web.Request, target: RequestTarget
) -> web.Response:
    """Handles PUT of a namespace's finalizers; without finalizers a terminating namespace is removed."""
    options = options_of(request, "UpdateOptions")
    sent, _ = decode(target, await read_body(request), request.headers.get("Content-Type", ""), options)
    check_name(target, sent.setdefault("metadata", {}))
    obj = copy_json(current_object(context, target))
    version = sent["metadata"].get("resourceVersion")
    if version:
        obj["metadata"]["resourceVersion"] = version
    finalizers = (sent.get("spec") or {}).get("finalizers")
    obj["spec"] = {"finalizers": finalizers} if finalizers else {}
    return json_response(context.store.replace(NAMESPACES, obj, dry_run=options.dry_run))


async def bind_pod(context: ApiContext, request: web.Request, target: RequestTarget) -> web.Response:
    """Handles POST of a Binding: assigns the pod to a node."""
    binding, _ = parse_object(await read_body(request), request.headers.get("Content-Type", ""), "Binding")
    node = (binding.get("target") or {}).get("name")
    if not node:
        raise bad_request("target.name is required")
    current_object(context, target)
    context.store.bind(str(target.namespace), target.name, node)
    return json_response(
        {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201
    )


async def evict_pod(context: ApiContext, request: web.Request, target: RequestTarget) -> web.Response:
    """Handles POST of an Eviction: marks the pod as disrupted and deletes it gracefully."""
    eviction, _ = parse_object(await read_body(request), request.headers.get("Content-Type", ""), "Eviction")
    current = current_object(context, target)
    options = eviction.get("deleteOptions") or {}
    marked = copy_json(current)
    conditions = [
        entry for entry in marked["status"].get("conditions") or [] if entry["type"] != "DisruptionTarget"
    ]
    conditions.append(
        {
            "type": "DisruptionTarget",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": format_time(context.store.now()),
            "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        }
    )
    marked["status"]["conditions"] = conditions
    if not options.get("dryRun"):
        context.store.replace(PODS, marked)
    context.store.delete(
        PODS,
        target.namespace,
        target.name,
        grace_period_seconds=options.get("gracePeriodSeconds"),
        preconditions=options.get("preconditions"),
        dry_run=bool(options.get("dryRun")),
    )
    return json_response(
        {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201
    )
