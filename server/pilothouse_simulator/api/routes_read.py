"""GET of one object and of lists: snapshots, paging, selectors, and waiting for a version."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from pilothouse_simulator.api.context import ApiContext, RequestTarget
from pilothouse_simulator.api.options import (
    ListOptions,
    decode_continue,
    encode_continue,
    list_options,
    resource_version,
)
from pilothouse_simulator.api.representation import json_response
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import bad_request
from pilothouse_simulator.values.selectors import build_predicate

JsonObject = dict[str, Any]

FUTURE_VERSION_WAIT_SECONDS = 3.0
_EXPIRED_CONTINUE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
    "modified, or deleted between the time the first chunk was returned and now may show up in the list."
)


async def wait_for_version(context: ApiContext, wanted: int) -> None:
    """Waits until the store has reached a version. Raises 504 after three seconds, like the real watch cache."""
    if wanted <= context.store.revision:
        return
    subscription = context.store.subscribe()
    try:
        async with asyncio.timeout(FUTURE_VERSION_WAIT_SECONDS / context.clock.speed):
            while context.store.revision < wanted:
                await subscription.next_batch()
    except TimeoutError as error:
        refusal = api_errors.too_large_resource_version(context.store.revision, wanted)
        refusal.headers["Retry-After"] = "1"
        raise refusal from error
    finally:
        subscription.close()


def _version_or_bad_request(text: str) -> int:
    try:
        return resource_version(text)
    except ValueError as error:
        raise bad_request(f"invalid resource version: {error}") from error


async def get_object(context: ApiContext, request: web.Request, target: RequestTarget) -> web.Response:
    """Handles GET of one object, and of its status subresource, which returns the whole object."""
    presenter = context.presenter(request, target)
    version = request.query.get("resourceVersion", "")
    if version:
        await wait_for_version(context, _version_or_bad_request(version))
    obj = context.store.get(target.resource, target.namespace, target.name)
    if obj is None:
        raise api_errors.not_found(target.resource, target.name)
    return json_response(presenter.one(obj), headers=context.deprecations(target.resource))


async def list_objects(context: ApiContext, request: web.Request, target: RequestTarget) -> web.Response:
    """Handles GET of a collection."""
    presenter = context.presenter(request, target)
    options = list_options(request.query, watch=False)
    predicate = build_predicate(target.resource, options.label_selector, options.field_selector)
    items, revision, start = await _snapshot(context, target, options)
    after = [item for item in items if _start_key(target, item) > start] if start else items
    matching: list[JsonObject] = []
    limit = 0 if options.version_text == "0" else options.limit
    remaining = len(after)
    for item in after:
        remaining -= 1
        if predicate is None or predicate(item):
            matching.append(item)
            if limit and len(matching) == limit:
                break
    metadata: JsonObject = {"resourceVersion": str(revision)}
    if limit and remaining and matching:
        metadata["continue"] = encode_continue(revision, "/" + _start_key(target, matching[-1]) + "\0")
        if predicate is None:
            metadata["remainingItemCount"] = remaining
    return json_response(presenter.many(matching, metadata), headers=context.deprecations(target.resource))


def _start_key(target: RequestTarget, item: JsonObject) -> str:
    metadata = item["metadata"]
    if target.resource.namespaced and target.namespace is None:
        return f"{metadata['namespace']}/{metadata['name']}"
    return str(metadata["name"])


async def _snapshot(
    context: ApiContext, target: RequestTarget, options: ListOptions
) -> tuple[list[JsonObject], int, str]:
    """Returns the objects to page through, their version, and the key to start after (empty: from the beginning)."""
    store = context.store
    if options.continue_token:
        revision, start = decode_continue(options.continue_token)
        start = start.removesuffix("\0")
        if revision == -1:
            return store.list(target.resource, target.namespace), store.revision, start
        if revision < store.history.compacted_revision:
            token = encode_continue(-1, start + "\0")
            raise api_errors.expired(_EXPIRED_CONTINUE, {"continue": token})
        return store.list_at(target.resource, target.namespace, revision), revision, start
    if options.version_text:
        revision = _version_or_bad_request(options.version_text)
        await wait_for_version(context, revision)
        if options.match == "Exact" or (options.limit and revision and not options.match):
            return store.list_at(target.resource, target.namespace, revision), revision, ""
    return store.list(target.resource, target.namespace), store.revision, ""
