"""Watch streams: the changes of one resource type from a given version, as lines of JSON.

A stream first subscribes to the store and then reads past changes from its history, so that no change is missed. With a
selector, an object that stops matching is reported as DELETED (with its last matching state and the version of the
change), and an object that begins to match as ADDED. Bookmarks report the version reached: at the end of the initial
events of a streaming list, about every minute, and shortly before the server ends the stream.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import orjson
from aiohttp import web

from pilothouse_simulator.api.context import ApiContext, RequestTarget
from pilothouse_simulator.api.options import ListOptions, list_options, resource_version
from pilothouse_simulator.api.representation import Presenter
from pilothouse_simulator.store.events import StoreEvent, Subscription
from pilothouse_simulator.values.api_errors import ApiError, internal_error
from pilothouse_simulator.values.selectors import Predicate, build_predicate

JsonObject = dict[str, Any]

BOOKMARK_SECONDS = 60.0
_AFTER_LIST_SECONDS = 0.6
_BEFORE_END_SECONDS = (2.0, 1.0)
_DEFAULT_TIMEOUT_SECONDS = (1800.0, 3600.0)
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_NO_PODS = {"metadata": {}, "spec": {"containers": None}}
# The fields of a bookmark in addition to its version: the empty object of its kind, as Go writes it, with `null` for
# lists.
_EMPTY: dict[str, JsonObject] = {
    "Pod": {"spec": {"containers": None}, "status": {}},
    "Deployment": {
        "spec": {"replicas": 0, "selector": None, "template": _NO_PODS, "strategy": {}},
        "status": {},
    },
    "ReplicaSet": {
        "spec": {"replicas": 0, "selector": None, "template": _NO_PODS},
        "status": {"replicas": 0},
    },
}


def selected(event: StoreEvent, predicate: Predicate | None) -> tuple[str, JsonObject] | None:
    """Translates a change for a watcher with this selector: type and object, or None if the watcher does not see it."""
    if predicate is None:
        return event.type, event.object
    matches = predicate(event.object)
    if event.type == "ADDED":
        return ("ADDED", event.object) if matches else None
    previous = event.previous
    matched = previous is not None and predicate(previous)
    if event.type == "DELETED":
        return ("DELETED", event.object) if matched else None
    if matches:
        return ("MODIFIED" if matched else "ADDED"), event.object
    if matched and previous is not None:
        metadata = {**previous["metadata"], "resourceVersion": str(event.resource_version)}
        return "DELETED", {**previous, "metadata": metadata}
    return None


class _UnfitFormError(Exception):
    """An event cannot be shown in the requested form."""


class WatchResponse:
    """One open watch."""

    def __init__(
        self,
        context: ApiContext,
        target: RequestTarget,
        options: ListOptions,
        presenter: Presenter,
        predicate: Predicate | None,
        start: int | None,
    ) -> None:
        self._context = context
        self.resource = target.resource
        self._target = target
        self._options = options
        self._presenter = presenter
        self._predicate = predicate
        self._start = start
        self._first = True
        self._dropped = self._finished = False
        self._task: asyncio.Task[Any] | None = None
        self._subscription: Subscription = context.store.subscribe(target.resource)

    def drop(self) -> None:
        """Ends the stream in the middle, like a killed server."""
        if self._task is not None and not self._dropped:
            self._task.cancel()
        self._dropped = True

    def finish(self) -> None:
        """Ends the stream as if its timeout had expired."""
        self._finished = True
        self._subscription.close()

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Sends the stream until its time is over, the client disconnects, or the stream is dropped."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        unregister = self._context.faults.on_drop_watches(self.drop)
        self._task = asyncio.current_task()
        self._context.streams.add(self)
        try:
            await response.prepare(request)
            with suppress(ConnectionError):
                # An object that cannot be shown in the requested form ends the stream without a reason.
                with suppress(_UnfitFormError):
                    await self._send(response)
                await response.write_eof()
        except asyncio.CancelledError:
            # The task may also have been cancelled by another party.
            if not self._dropped or self._task is None or self._task.uncancel():
                raise
            if request.transport is not None:
                request.transport.abort()
        finally:
            unregister()
            self._context.streams.discard(self)
            self._subscription.close()
        return response

    async def _send(self, response: web.StreamResponse) -> None:
        loop = asyncio.get_running_loop()
        speed = self._context.clock.speed
        began = loop.time()
        seconds = self._options.timeout_seconds
        duration = float(seconds) if seconds else random.uniform(*_DEFAULT_TIMEOUT_SECONDS)
        end = began + duration / speed
        if (floor := await self._send_initial(response)) is None:
            return
        bookmarks = self._bookmark_times(duration)
        future = self._start is not None and self._start > floor
        next_bookmark = next(bookmarks, None)
        while True:
            deadline = end if next_bookmark is None else min(end, began + next_bookmark / speed)
            batch = await self._wait(deadline)
            if self._finished:
                if not self._context.closing:
                    await self._send_changes(response, batch, 0 if future else floor)
                if self._options.bookmarks:
                    await response.write(self._bookmark())
                return
            if self._context.closing:
                next_bookmark = None
                continue
            await self._send_changes(response, batch, 0 if future else floor)
            now = loop.time()
            if now >= end:
                return
            if next_bookmark is not None and now >= began + next_bookmark / speed:
                if not future:
                    await response.write(self._bookmark())
                next_bookmark = next(bookmarks, None)

    async def _send_initial(self, response: web.StreamResponse) -> int | None:
        """Sends the initial state; returns the version that it reached, or None if the watch is refused."""
        if self._start and self._context.faults.storage_stalled:
            await self._context.faults.storage_flows()
        try:
            lines = self._initial()
        except ApiError as error:
            await response.write(self._line("ERROR", error.status))
            return None
        reached = self._context.store.revision
        if lines:
            await response.write(b"".join(lines))
        return reached

    async def _send_changes(self, response: web.StreamResponse, batch: list[StoreEvent], floor: int) -> None:
        """Sends the events after both `floor`, the version of the initial state, and the requested version."""
        if batch and self._context.faults.storage_stalled:
            await self._context.faults.storage_flows()
        lines = [
            self._line(*seen)
            for event in batch
            if event.resource_version > max(floor, self._start or 0)
            and self._in_namespace(event)
            and (seen := selected(event, self._predicate)) is not None
        ]
        if lines:
            await response.write(b"".join(lines))

    async def _wait(self, deadline: float) -> list[StoreEvent]:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._subscription.next_batch()
        except TimeoutError:
            return []

    def _in_namespace(self, event: StoreEvent) -> bool:
        namespace = self._target.namespace
        return namespace is None or event.object["metadata"].get("namespace") == namespace

    def _initial(self) -> list[bytes]:
        """Returns the present objects, or the changes since the requested version.

        Raises Expired if that version is compacted.
        """
        store, options = self._context.store, self._options
        lists = options.send_initial_events
        if lists is None:
            lists = not self._start
        if lists:
            lines = [
                self._line("ADDED", obj)
                for obj in store.list(self._target.resource, self._target.namespace)
                if self._predicate is None or self._predicate(obj)
            ]
            if options.send_initial_events and options.bookmarks:
                lines.append(self._bookmark(initial_end=True))
            return lines
        if self._start is None or self._start == 0:
            return []
        events = store.history.after(self._target.resource, self._start)
        return [
            self._line(*seen)
            for event in events
            if self._in_namespace(event) and (seen := selected(event, self._predicate)) is not None
        ]

    def _bookmark_times(self, duration: float) -> Iterator[float]:
        """Yields when bookmarks are due, in simulated seconds since the stream began."""
        if not self._options.bookmarks or duration <= _BEFORE_END_SECONDS[0]:
            return
        if self._context.faults.too_busy_for_bookmarks:
            return
        if self._options.send_initial_events:
            yield _AFTER_LIST_SECONDS
        before_end = [duration - seconds for seconds in _BEFORE_END_SECONDS]
        limit = before_end[0]
        moment = BOOKMARK_SECONDS * random.uniform(0.75, 1.0)
        while moment < limit:
            yield moment
            moment += BOOKMARK_SECONDS * random.uniform(0.75, 1.0)
        yield from before_end

    def _bookmark(self, *, initial_end: bool = False) -> bytes:
        resource = self._target.resource
        metadata: JsonObject = {"resourceVersion": str(self._context.store.revision)}
        if initial_end:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        head = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        obj = {**head, **_EMPTY.get(resource.kind, {})}
        return self._line("BOOKMARK", obj)

    def _line(self, kind: str, obj: JsonObject) -> bytes:
        if self._presenter.form == "metadata list" and kind != "ERROR":
            raise _UnfitFormError
        document = self._presenter.event(kind, obj, first=self._first)
        self._first = False
        return orjson.dumps(document) + b"\n"


async def watch_objects(
    context: ApiContext, request: web.Request, target: RequestTarget
) -> web.StreamResponse:
    """Handles GET of a collection with `watch`. Most refusals are returned before the stream begins."""
    presenter = context.presenter(request, target)
    options = list_options(request.query, watch=True)
    predicate = build_predicate(target.resource, options.label_selector, options.field_selector)
    start: int | None = None
    if options.version_text:
        try:
            start = resource_version(options.version_text)
        except ValueError as error:
            raise internal_error(str(error)) from error
    if target.name:
        predicate = _named(target.name, predicate)
    return await WatchResponse(context, target, options, presenter, predicate, start).run(request)


def _named(name: str, predicate: Predicate | None) -> Predicate:
    def matches(obj: JsonObject) -> bool:
        return bool(obj["metadata"]["name"] == name) and (predicate is None or predicate(obj))

    return matches
