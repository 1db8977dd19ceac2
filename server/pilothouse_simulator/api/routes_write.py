"""POST, PUT and PATCH of objects. Warnings are sent in the headers of the response."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from pilothouse_simulator.admission import validation
from pilothouse_simulator.api import patch
from pilothouse_simulator.api.context import ApiContext, RequestTarget, Warnings, warning
from pilothouse_simulator.api.decoding import (
    BODY_LIMIT_BYTES,
    check_applied,
    convert,
    parse_object,
    parse_yaml,
)
from pilothouse_simulator.api.options import WriteOptions, write_options
from pilothouse_simulator.api.representation import json_response
from pilothouse_simulator.store import field_tracking
from pilothouse_simulator.store.schema import schema_of
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import ErrorCause, bad_request
from pilothouse_simulator.values.clock import format_time
from pilothouse_simulator.values.resources import NAMESPACES, PODS, SERVICE_ACCOUNTS, ResourceType

JsonObject = dict[str, Any]

APPLY_TYPE = "application/apply-patch+yaml"
STRATEGIC_TYPE = "application/strategic-merge-patch+json"
PATCH_TYPES = frozenset({
    APPLY_TYPE, STRATEGIC_TYPE, "application/json-patch+json", "application/merge-patch+json",
})  # fmt: skip
_BODY = web.RequestKey("body", bytes)
_SERVICE_ACCOUNT_WAIT_SECONDS = 2.0


async def read_body(request: web.Request) -> bytes:
    """Returns the body, also when called again. Raises 413 above 3 MiB."""
    if _BODY in request:
        return request[_BODY]
    body = await request.content.read(BODY_LIMIT_BYTES + 1) if request.can_read_body else b""
    while request.can_read_body and len(body) <= BODY_LIMIT_BYTES and not request.content.at_eof():
        chunk = await request.content.read(BODY_LIMIT_BYTES + 1 - len(body))
        if not chunk:
            break
        body += chunk
    if len(body) > BODY_LIMIT_BYTES:
        raise api_errors.failure(
            413, f"Request entity too large: limit is {BODY_LIMIT_BYTES}", "RequestEntityTooLarge"
        )
    request[_BODY] = body
    return body


def media_type(request: web.Request) -> str:
    """Returns the media type of the body, without parameters."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def options_of(request: web.Request, kind: str, *, applies: bool = False) -> WriteOptions:
    """Returns dryRun, fieldManager and fieldValidation of the request."""
    return write_options(request.query, kind, request.headers.get("User-Agent", ""), applies=applies)


def decode(
    target: RequestTarget, body: bytes, content_type: str, options: WriteOptions
) -> tuple[JsonObject, Warnings]:
    """Returns the object in the body of POST or PUT, and warnings about its unknown and duplicate fields."""
    resource = target.resource
    document, duplicates = parse_object(body, content_type, resource.kind)
    kind, version = document.get("kind"), document.get("apiVersion")
    if kind not in (None, "", resource.kind) or version not in (
        None,
        "",
        resource.api_version,
        target.api_version,
    ):
        _, _, short = str(version or resource.api_version).rpartition("/")
        wanted = f"{resource.group or '__internal'}.{resource.kind}" if resource.group else resource.kind
        raise bad_request(
            f'{kind} in version "{short}" cannot be handled as a {resource.kind}: converting '
            f"({short}.{kind}) to ({wanted}): unknown conversion"
        )
    obj, unknown = convert(resource, document)
    obj["kind"], obj["apiVersion"] = resource.kind, resource.api_version
    problems = [f'unknown field "{path}"' for path in unknown] + [
        f'duplicate field "{path}"' for path in duplicates
    ]
    if problems and options.field_validation == "Strict":
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            f"strict decoding error: {', '.join(problems)}"
        )
    warnings = [warning(problem) for problem in problems] if options.field_validation == "Warn" else []
    return obj, warnings


def check_namespace(target: RequestTarget, metadata: JsonObject) -> None:
    """Raises 400 unless the namespace in the body is that of the URL or absent."""
    if not target.resource.namespaced:
        metadata.pop("namespace", None)
        return
    sent = metadata.setdefault("namespace", target.namespace)
    if sent != target.namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def check_name(target: RequestTarget, metadata: JsonObject) -> None:
    """Raises 400 unless the name in the body is that of the URL."""
    sent = metadata.get("name") or ""
    if sent != target.name:
        raise bad_request(
            f"the name of the object ({sent}) does not match the name on the URL ({target.name})"
            if sent
            else "name must be provided"
        )


async def create_object(context: ApiContext, request: web.Request, target: RequestTarget) -> web.Response:
    """Handles POST to a collection."""
    presenter = context.presenter(request, target)
    options = options_of(request, "CreateOptions")
    body = await read_body(request)
    obj, warnings = decode(target, body, request.headers.get("Content-Type", ""), options)
    metadata = obj.setdefault("metadata", {})
    check_namespace(target, metadata)
    if metadata.get("resourceVersion"):
        raise api_errors.internal_error("resourceVersion should not be set on objects to be created")
    await _wait_for_service_account(context, target, obj)
    stored = context.store.create(
        target.resource, obj, manager=options.field_manager, dry_run=options.dry_run
    )
    warnings += context.warnings(target.resource, stored, None)
    return json_response(presenter.one(stored), 201, [*warnings, *context.deprecations(target.resource)])


async def _wait_for_service_account(context: ApiContext, target: RequestTarget, obj: JsonObject) -> None:
    """Waits for the service account of a pod, which controllers create in a new namespace. Raises 403 on timeout."""
    if target.resource is not PODS or target.namespace is None:
        return
    store, namespace = context.store, target.namespace
    name = obj.get("spec", {}).get("serviceAccountName") or "default"
    parent = store.get(NAMESPACES, None, namespace)
    if parent is None or "deletionTimestamp" in parent["metadata"]:
        return
    subscription = store.subscribe(SERVICE_ACCOUNTS)
    try:
        async with asyncio.timeout(_SERVICE_ACCOUNT_WAIT_SECONDS):
            while store.get(SERVICE_ACCOUNTS, namespace, name) is None:
                await subscription.next_batch()
    except TimeoutError as error:
        raise api_errors.forbidden(
            PODS,
            str(obj["metadata"].get("name", "")),
            f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found',
        ) from error
    finally:
        subscription.close()


async def replace_object(context: ApiContext, request: web.Request, target: RequestTarget) -> web.Response:
    """Handles PUT of an object."""
    presenter = context.presenter(request, target)
    options = options_of(request, "UpdateOptions")
    body = await read_body(request)
    obj, warnings = decode(target, body, request.headers.get("Content-Type", ""), options)
    metadata = obj.setdefault("metadata", {})
    check_name(target, metadata)
    check_namespace(target, metadata)
    current = context.store.get(target.resource, target.namespace, target.name)
    stored = context.store.update(
        target.resource, obj, manager=options.field_manager, dry_run=options.dry_run
    )
    warnings += context.warnings(target.resource, stored, current)
    return json_response(presenter.one(stored), headers=warnings)


async def patch_object(context: ApiContext, request: web.Request, target: RequestTarget) -> web.Response:
    """Handles PATCH of an object with any of the four patch types."""
    presenter = context.presenter(request, target)
    kind = media_type(request)
    if kind not in PATCH_TYPES:
        raise unsupported_patch_type()
    if target.resource.custom is not None and kind == STRATEGIC_TYPE:
        raise no_strategic_merge()
    options = options_of(request, "PatchOptions", applies=kind == APPLY_TYPE)
    body = await read_body(request)
    current = context.store.get(target.resource, target.namespace, target.name)
    if kind == APPLY_TYPE:
        stored, created = apply_object(context, target, body, options)
        warnings = context.warnings(target.resource, stored, current)
        return json_response(presenter.one(stored), 201 if created else 200, warnings)
    if current is None:
        raise api_errors.not_found(target.resource, target.name)
    obj, warnings = patched(target.resource, current, body, kind, options)
    metadata = obj.get("metadata") or {}
    check_name(target, metadata)
    check_namespace(target, metadata)
    if metadata.get("uid") != current["metadata"]["uid"]:
        raise validation.immutable_uid(target.resource, target.name, str(metadata.get("uid", "")))
    stored = context.store.update(
        target.resource, obj, manager=options.field_manager, dry_run=options.dry_run
    )
    warnings += context.warnings(target.resource, stored, current)
    return json_response(presenter.one(stored), headers=warnings)


def unsupported_patch_type() -> api_errors.ApiError:
    """Returns 415 for a PATCH whose content type is not a patch type."""
    return api_errors.failure(415, "415: Unsupported Media Type", "UnsupportedMediaType", {})


def no_strategic_merge() -> api_errors.ApiError:
    """Returns 415 for a strategic merge patch of a custom resource, which has no merge keys."""
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, "
        "application/apply-patch+cbor"
    )
    return api_errors.failure(415, message, "UnsupportedMediaType", {})


def patched(
    resource: ResourceType, current: JsonObject, body: bytes, kind: str, options: WriteOptions
) -> tuple[JsonObject, Warnings]:
    """Returns the current object with a JSON, merge or strategic merge patch applied, decoded again."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise bad_request(f"error decoding patch: {error}") from error
    if kind == "application/json-patch+json":
        changed = patch.json_patch(current, document)
    else:
        if not isinstance(document, dict):
            raise bad_request("error decoding patch: json: cannot unmarshal into Go value of type map")
        changed = (
            patch.merge_patch(current, document)
            if kind == "application/merge-patch+json"
            else patch.strategic_merge_patch(schema_of(resource), current, document)
        )
    try:
        obj, unknown = convert(resource, changed)
    except api_errors.ApiError as error:
        raise _patch_invalid(changed, str(error)) from error
    problems = [f'unknown field "{path}"' for path in unknown]
    if problems and options.field_validation == "Strict":
        raise _patch_invalid(changed, f"strict decoding error: {', '.join(problems)}")
    return obj, [warning(problem) for problem in problems] if options.field_validation == "Warn" else []


def _patch_invalid(changed: Any, message: str) -> api_errors.ApiError:
    shown = json.dumps(json.dumps(changed, separators=(",", ":")))
    cause = ErrorCause("FieldValueInvalid", f"Invalid value: {shown}: {message}", "patch")
    return api_errors.invalid_kind("", "", "", [cause])


def parse_configuration(target: RequestTarget, body: bytes, api_version: str, kind: str) -> JsonObject:
    """Returns the configuration of an apply, checked against the URL."""
    configuration = parse_yaml(body)
    if not isinstance(configuration, dict):
        raise bad_request("error decoding YAML: json: cannot unmarshal into Go value of type map")
    sent_version, sent_kind = configuration.get("apiVersion") or "", configuration.get("kind") or ""
    if sent_kind != kind or sent_version != api_version:
        shown = sent_version if "/" in sent_version else f"/{sent_version}"
        raise bad_request(f"invalid object type: {shown}, Kind={sent_kind}")
    metadata = configuration.setdefault("metadata", {})
    if metadata.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    if metadata.get("name", target.name) != target.name:
        check_name(target, metadata)
    if metadata.get("namespace"):
        check_namespace(target, metadata)
    return configuration


def apply_object(
    context: ApiContext, target: RequestTarget, body: bytes, options: WriteOptions, subresource: str = ""
) -> tuple[JsonObject, bool]:
    """Applies a configuration (server-side apply). Returns the stored object, and whether it was created."""
    resource, store = target.resource, context.store
    configuration = parse_configuration(target, body, target.api_version, resource.kind)
    metadata = configuration["metadata"]
    live = store.get(resource, target.namespace, target.name)
    label = (
        f"{metadata.get('namespace') or ''}/{target.name}; {_group_version(resource)}, Kind={resource.kind}"
    )
    uid = metadata.get("uid")
    if live is None and subresource:
        raise api_errors.not_found(resource, target.name)
    if live is None and uid:
        message = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        raise api_errors.conflict(resource, target.name, message)
    check_applied(resource, configuration, label)
    if live is not None and uid and uid != live["metadata"]["uid"]:
        raise validation.immutable_uid(resource, target.name, uid)
    configuration = without_unwritable(resource, configuration, subresource)
    result = field_tracking.apply_configuration(
        resource,
        live or {},
        configuration,
        manager=options.field_manager,
        force=options.force,
        time=format_time(store.now()),
        subresource=subresource,
    )
    result, _ = convert(resource, result)
    result["metadata"]["name"] = target.name
    if target.namespace is not None:
        result["metadata"]["namespace"] = target.namespace
    if live is None:
        return store.create(resource, result, dry_run=options.dry_run), True
    if metadata.get("resourceVersion"):
        result["metadata"]["resourceVersion"] = metadata["resourceVersion"]
    if subresource == "status":
        return store.update_status(resource, result, None, dry_run=options.dry_run), False
    return store.update(resource, result, dry_run=options.dry_run), False


def _group_version(resource: ResourceType) -> str:
    return f"{resource.group}/{resource.version}"


def without_unwritable(resource: ResourceType, obj: JsonObject, subresource: str) -> JsonObject:
    """Drops the fields that a write to this (sub)resource cannot set: status of the main resource, spec of status."""
    dropped = "spec" if subresource == "status" else "status" if resource.has_status else None
    return {name: value for name, value in obj.items() if name != dropped}
