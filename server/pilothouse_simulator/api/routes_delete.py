"""DELETE of one object or of a collection, with options from the body or the query."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from pilothouse_simulator.admission import webhooks
from pilothouse_simulator.admission.validation_metadata import not_supported
from pilothouse_simulator.api.context import ApiContext, RequestTarget
from pilothouse_simulator.api.decoding import parse_object
from pilothouse_simulator.api.options import integer, list_options, options_invalid
from pilothouse_simulator.api.representation import json_response
from pilothouse_simulator.api.routes_write import read_body
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import ErrorCause
from pilothouse_simulator.values.resources import JOBS, PODS, RESOURCE_QUOTAS, SERVICES, ResourceType
from pilothouse_simulator.values.selectors import build_predicate

JsonObject = dict[str, Any]

_JOB_WARNING = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or "
    "set propagationPolicy=Orphan to suppress this warning"
)
_POLICIES = ("Foreground", "Background", "Orphan")


async def _delete_options(request: web.Request) -> JsonObject:
    """Returns the DeleteOptions from the body, or from the query if there is no body."""
    body = await read_body(request)
    if body:
        document, _ = parse_object(body, request.headers.get("Content-Type", ""), "DeleteOptions")
        return document
    options: JsonObject = {}
    grace = integer(request.query, "gracePeriodSeconds")
    if grace is not None:
        options["gracePeriodSeconds"] = grace
    if request.query.get("propagationPolicy"):
        options["propagationPolicy"] = request.query["propagationPolicy"]
    if request.query.get("dryRun"):
        options["dryRun"] = [request.query["dryRun"]]
    return options


def _check_delete_options(options: JsonObject) -> None:
    causes: list[ErrorCause] = []
    policy, dry_run = options.get("propagationPolicy"), options.get("dryRun") or []
    if policy is not None and policy not in _POLICIES:
        causes.append(not_supported("propagationPolicy", policy, (*_POLICIES, "nil")))
    if dry_run not in ([], ["All"]):
        causes.append(not_supported("dryRun", dry_run, ("All",)))
    grace = options.get("gracePeriodSeconds")
    if grace is not None and grace < 0:
        options["gracePeriodSeconds"] = 1
    if causes:
        raise options_invalid("DeleteOptions", causes)


def _delete(
    context: ApiContext, resource: ResourceType, metadata: JsonObject, options: JsonObject
) -> JsonObject | None:
    webhooks.call(context.faults.webhooks, resource, "DELETE")
    return context.store.delete(
        resource,
        metadata.get("namespace"),
        metadata["name"],
        grace_period_seconds=options.get("gracePeriodSeconds"),
        propagation_policy=options.get("propagationPolicy"),
        preconditions=options.get("preconditions"),
        dry_run=bool(options.get("dryRun")),
    )


def _default_policy(resource: ResourceType, options: JsonObject) -> list[tuple[str, str]]:
    """Sets the default policy of Jobs, which orphan their pods; returns the headers that warn of it."""
    if resource is not JOBS or options.get("propagationPolicy") is not None or "orphanDependents" in options:
        return []
    options["propagationPolicy"] = "Orphan"
    return [("Warning", f'299 - "{_JOB_WARNING}"')]


async def delete_object(context: ApiContext, request: web.Request, target: RequestTarget) -> web.Response:
    """Handles DELETE of one object: returns the object while finalizers or a grace period hold it, else a Status."""
    presenter = context.presenter(request, target)
    resource = target.resource
    options = await _delete_options(request)
    _check_delete_options(options)
    warnings = _default_policy(resource, options)
    current = context.store.get(resource, target.namespace, target.name)
    if current is None:
        raise api_errors.not_found(resource, target.name)
    left = _delete(context, resource, current["metadata"], options)
    if left is not None:
        return json_response(presenter.one(left), headers=warnings)
    if resource in (SERVICES, PODS, RESOURCE_QUOTAS):
        return json_response(presenter.one(current))
    details = api_errors.object_details(resource, target.name)
    details["uid"] = current["metadata"]["uid"]
    return json_response(
        {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    )


async def delete_collection(context: ApiContext, request: web.Request, target: RequestTarget) -> web.Response:
    """Handles DELETE of a collection: returns the list of the deleted objects."""
    presenter = context.presenter(request, target)
    options = await _delete_options(request)
    _check_delete_options(options)
    selection = list_options(request.query, watch=False)
    predicate = build_predicate(target.resource, selection.label_selector, selection.field_selector)
    items = [
        item
        for item in context.store.list(target.resource, target.namespace)
        if predicate is None or predicate(item)
    ]
    metadata: JsonObject = {"resourceVersion": str(context.store.revision)}
    for item in items:
        _delete(context, target.resource, item["metadata"], options)
    return json_response(presenter.many(items, metadata))
