"""The client of one cluster's API: raw responses, decoded into partial structs, errors from one closed hierarchy.

Every call has a deadline, goes through the cluster's own connection pool and rate limit, and can be repeated: writes
are server-side apply, scale, or deletion with preconditions. Nothing is retried here. A watch is an async iterator that
ends when the server ends it. The observer lists again after `Expired`, and then continues the watch.

API pitfalls that this module handles:
  * a DELETE with a DeleteOptions body ignores its query parameters, so all options go into the body;
  * an apply with a wrong type gets a 500 without a reason (see `errors`);
  * watch lines may exceed 4 MiB and may be cut off in the middle. So lines are split here, and a last line without a
    line break is dropped: the watch resumes from the version before it;
  * a stopped server leaves watches open and silent for a minute, and a busy server may send no bookmarks for longer. So
    silence proves nothing until the server should have ended the watch. Each watch asks it to do so within two minutes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeVar, cast

import msgspec

from pilothouse_server.kubernetes import connection
from pilothouse_server.kubernetes.decoding import (
    AT_ONCE_BYTES,
    TooDense,
    TooMany,
    check_items,
    decode,
)
from pilothouse_server.kubernetes.errors import (
    AnswerTooLarge,
    NotFound,
    TooManyValues,
    Unreachable,
    Unreadable,
    shown,
)
from pilothouse_server.kubernetes.fingerprints import may_be_unstorable, mended, read
from pilothouse_server.kubernetes.http import aiohttp
from pilothouse_server.kubernetes.left_out import LeftOut, known
from pilothouse_server.kubernetes.objects import (
    AccessReview,
    KubernetesObject,
    ListMeta,
    Manifest,
    Resource,
    T,
    Version,
)
from pilothouse_server.kubernetes.transport import (
    DEFAULT_LIMITS,
    JSON,
    ClusterTransport,
    PageBound,
    TransportLimits,
    accepted,
)
from pilothouse_server.kubernetes.usage import PodStats, StatsSummary
from pilothouse_server.kubernetes.watch_stream import (
    Line,
    WatchEvent,
    cut_line,
    decode_event,
    split_lines,
    without_object,
)
from pilothouse_server.outbound.destinations import ANYWHERE, Reach, TooLong
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.runtime.tasks import cancel_and_wait

FIELD_MANAGER = "pilothouse"
APPLY = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

Propagation = Literal["Foreground", "Background", "Orphan"]


# Namespaces and names.
_Keys = list[tuple[str, str]]


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Objects of a list. `left_out`: namespace and name of objects that cannot be read."""

    items: tuple[T, ...]
    resource_version: str
    continue_token: str = ""
    left_out: tuple[tuple[str, str], ...] = ()


class _Items(msgspec.Struct, Generic[T]):
    metadata: ListMeta
    items: list[T] | None = None


class _RawItems(msgspec.Struct):
    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


class _RawStats(msgspec.Struct):
    pods: list[msgspec.Raw] | None = None


_Raw = TypeVar("_Raw", _RawItems, _RawStats)


class _Of(msgspec.Struct):
    metadata: ListMeta


class ClusterClient:
    """One cluster. Bound to the event loop it is first used on; `close` it there.

    Every method raises ClusterError (see `errors` for each kind and its next move), never the library's errors.
    """

    def __init__(self, api_client: Any, *, name: str, limits: TransportLimits = DEFAULT_LIMITS) -> None:
        self.name = name
        self.limits = limits
        self._transport = ClusterTransport(api_client, name=name, limits=limits)
        self._left_out = LeftOut(name)

    @classmethod
    async def from_kubeconfig(
        cls,
        kubeconfig: Mapping[str, Any],
        *,
        name: str,
        context: str | None = None,
        allow_files: bool = False,
        limits: TransportLimits = DEFAULT_LIMITS,
        reach: Reach = ANYWHERE,
    ) -> ClusterClient:
        """Returns a client for a parsed kubeconfig that connects within `reach` only; it does not connect yet.

        Raises CredentialsRefused.
        """
        api_client = await connection.from_kubeconfig(
            kubeconfig, context=context, allow_files=allow_files, pool_size=limits.connections, reach=reach
        )
        return cls(api_client, name=name, limits=limits)

    @classmethod
    async def in_cluster(cls, *, name: str, limits: TransportLimits = DEFAULT_LIMITS) -> ClusterClient:
        """Returns a client with the service account of the server's own pod. Raises CredentialsRefused."""
        return cls(await connection.in_cluster(pool_size=limits.connections), name=name, limits=limits)

    @property
    def server(self) -> str:
        """The API server's address."""
        return self._transport.server

    def now(self) -> datetime:
        """Returns the time by the cluster's clock, for comparison with times that the cluster wrote."""
        return datetime.now(UTC) + self._transport.ahead

    async def close(self) -> None:
        """Closes all connections; open watches end with Unreachable."""
        await self._transport.close()

    async def version(self) -> str:
        """Returns the server's version, `v1.36.2`."""
        return shown(decode(await self._transport.request("GET", "/version"), Version).git_version)

    async def get(self, resource: Resource[T], namespace: str | None, name: str) -> T:
        """Reads one object. Raises NotFound."""
        accept = accepted(resource.metadata_only)
        return read(
            await self._transport.request("GET", resource.path(namespace, name), accept=accept), resource
        )

    async def find(self, resource: Resource[T], namespace: str | None, name: str) -> T | None:
        """Reads one object; returns None if it does not exist."""
        try:
            return await self.get(resource, namespace, name)
        except NotFound:
            return None

    async def document(self, path: str, query: Mapping[str, str]) -> bytes:
        """Reads a document of the API server that is not an object, such as an OpenAPI document."""
        return await self._transport.request("GET", path, query)

    async def select(self, resource: Resource[T], namespace: str, field_selector: str) -> Sequence[T]:
        """Returns the objects of a namespace with these fields."""
        return (await self.list(resource, namespace, field_selector=field_selector)).items

    async def read(self, resource: Resource[Any], namespace: str | None, name: str) -> Manifest:
        """Reads one object whole, as JSON. Raises NotFound."""
        return decode(await self._transport.request("GET", resource.path(namespace, name)), dict)

    async def pages(
        self,
        resource: Resource[T],
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncGenerator[Page[T], None]:
        """Yields all objects in pages of one consistent snapshot, without those that cannot be read.

        Raises Expired if the snapshot is too old: list again from the beginning.
        """

        limit, most, path = self.limits.page_size, self.limits.page_bytes, resource.path(namespace)
        accept, seconds = accepted(resource.metadata_only, listed=True), self.limits.list_seconds
        objects = size = 0

        def request(token: str) -> asyncio.Task[bytes]:
            query = _present(limit=str(limit), labelSelector=label_selector, fieldSelector=field_selector)
            query |= {"continue": token} if token else {}
            page = PageBound(most, fewer=limit > 1)
            return asyncio.create_task(
                self._transport.request("GET", path, query, accept=accept, seconds=seconds, page=page)
            )

        token = ""
        requested: asyncio.Task[bytes] | None = request(token)
        try:
            while requested is not None:
                try:
                    body = await requested
                    await self._check_page(body, limit)
                except TooLong:
                    if limit == 1:
                        raise self._too_long("an object", most) from None
                    # The objects are large or dense, so the next page requests fewer. A cluster that sends too much for
                    # any request is detected at the third page, within twice the time of one page.
                    limit, most = max(1, limit // 32), self.limits.page_bytes // 2
                    requested = request(token)
                    continue
                one_by_one = resource.marked or len(body) > AT_ONCE_BYTES or may_be_unstorable(body)
                whole = None if one_by_one else _all_of(body, resource)
                # One unreadable object must not hide the others.
                listed: Any = whole or await _cut_apart(body, _RawItems)
                token = listed.metadata.continue_
                # The cluster prepares the next page while this one is decoded.
                requested = request(token) if token else None
                items = listed.items or ()
                objects, size = objects + len(items), size + len(body)
                if objects > self.limits.objects or size > self.limits.list_bytes:
                    raise self.too_many(resource)
                left_out: _Keys = []
                if whole is None:
                    # Decoding many objects in one step would block the event loop.
                    items = [
                        each
                        async for item in cooperatively(items)
                        if (each := await self._read(item, resource, left_out)) is not None
                    ]
                yield Page(tuple(items), listed.metadata.resource_version, token, tuple(left_out))
        finally:
            if requested is not None:
                await cancel_and_wait(requested)

    def too_many(self, resource: Resource[Any]) -> AnswerTooLarge:
        """Returns the error for more objects of a kind than a cluster may have."""
        most = f"{self.limits.objects} objects of kind {resource.kind}, or {self.limits.list_bytes} bytes of them"
        return self._transport.too_large(f"it has more than {most}")

    def too_long_a_message(self) -> AnswerTooLarge:
        """Returns the error for a message of a stream that is longer than it may be."""
        return self._too_long("a message of a stream", self.limits.message_bytes)

    def check_answers(self) -> None:
        """Raises AnswerTooLarge if the cluster sent an oversized response within the last minute."""
        if (excess := self._transport.excess()) is not None:
            raise excess

    async def list(
        self,
        resource: Resource[T],
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Page[T]:
        """Returns all objects in one list. A watch continues from `resource_version`. Raises Expired."""
        items: list[T] = []
        left_out: _Keys = []
        resource_version = ""
        async for page in self.pages(
            resource, namespace, label_selector=label_selector, field_selector=field_selector
        ):
            items += page.items
            left_out += page.left_out
            resource_version = page.resource_version
        return Page(tuple(items), resource_version, left_out=tuple(left_out))

    async def _read(self, body: msgspec.Raw, resource: Resource[T], left_out: _Keys) -> T | None:
        """Returns an object.

        Adds the key of an unreadable one to `left_out` and returns None. Raises AnswerTooLarge.
        """
        try:
            if len(body) > AT_ONCE_BYTES:
                await self._transport.check_values(body, "an object of a list")
            return read(body, resource)
        except Unreadable:
            key = object_key(known(body))
            left_out.append(key)
            self._left_out.note(resource.kind, key)
            return None

    async def newest_version(self, resource: Resource[Any], namespace: str | None = None) -> str:
        """Returns the resource version that a list would have now."""
        path, accept = resource.path(namespace), accepted(resource.metadata_only, listed=True)
        body = await self._listed(path, {"limit": "1"}, accept)
        await self._check_items(body, "items", of_one=True)
        return decode(body, _Of).metadata.resource_version

    async def watch(
        self,
        resource: Resource[T],
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yields changes after `resource_version`, and bookmarks. Ends when the server ends the watch.

        After an end, or Unreachable, continue from the last event's version; after Expired list again. Close the
        iterator (`contextlib.aclosing`) when leaving it early, or its connection stays in use.
        """
        seconds = random.randint(self.limits.watch_seconds, 2 * self.limits.watch_seconds)  # noqa: S311
        query = _present(
            watch="true",
            allowWatchBookmarks="true",
            timeoutSeconds=str(seconds),
            resourceVersion=resource_version,
            labelSelector=label_selector,
            fieldSelector=field_selector,
        )
        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=self.limits.request_seconds,
            sock_connect=self.limits.connect_seconds,
            sock_read=self.limits.watch_idle_seconds,
        )
        async with self._transport.answer(
            "GET",
            resource.path(namespace),
            query,
            accept=accepted(resource.metadata_only),
            timeout=timeout,
        ) as response:
            try:
                chunks = response.content.iter_any()
                async for line in split_lines(chunks, self.limits.body_bytes, self._transport.pace()):
                    event = await _cut_line(line)
                    try:
                        if len(line) > AT_ONCE_BYTES:
                            await self._transport.check_values(event.object, "an object of a watch")
                        found = decode_event(event, resource, self._left_out.note)
                    except TooManyValues:
                        found = without_object(event, resource, self._left_out.note)
                    yield found
            except TooLong:
                raise self._too_long("a line of a watch", self.limits.body_bytes) from None

    async def apply(
        self, resource: Resource[T], manifest: Manifest, *, force: bool = False, dry_run: bool = False
    ) -> T:
        """Sets these fields by server-side apply, and removes our fields that the manifest does not name.

        `force` takes fields over from other managers; without it they are a Conflict. `dry_run` runs everything,
        including admission, but stores nothing. Raises Conflict, Invalid, Forbidden, NotFound (of the namespace).
        """
        return read(await self._apply(resource, manifest, force=force, dry_run=dry_run), resource)

    async def dry_run(self, resource: Resource[Any], manifest: Manifest, *, force: bool = False) -> Manifest:
        """Returns the whole object as JSON, as it would be after `apply`. Raises as `apply`."""
        return decode(await self._apply(resource, manifest, force=force, dry_run=True), dict)

    async def dry_run_replaced(
        self, resource: Resource[Any], namespace: str | None, name: str, steps: Sequence[str], value: Any
    ) -> Manifest:
        """Returns the whole object as JSON, as it would be with one field set to `value`; stores nothing.

        `steps`: the keys that lead to the field. The API server's defaults, webhooks and admission apply. Raises
        NotFound, Invalid, Forbidden.
        """
        pointer = "".join(f"/{step.replace('~', '~0').replace('/', '~1')}" for step in steps)
        body = await self._transport.request(
            "PATCH",
            resource.path(namespace, name),
            _writing(dry_run=True),
            body=[{"op": "replace", "path": pointer, "value": value}],
            content_type=JSON_PATCH,
        )
        return decode(body, dict)

    async def merge_patch(
        self,
        resource: Resource[T],
        namespace: str | None,
        name: str,
        patch: Manifest,
        *,
        dry_run: bool = False,
    ) -> T:
        """Sends a JSON merge patch (RFC 7396) of an object that must exist. Raises NotFound, Conflict, Invalid."""
        body = await self._transport.request(
            "PATCH",
            resource.path(namespace, name),
            _writing(dry_run),
            body=patch,
            content_type=MERGE_PATCH,
        )
        return read(body, resource)

    async def set_scale(
        self, resource: Resource[Any], namespace: str, name: str, replicas: int, *, dry_run: bool = False
    ) -> None:
        """Sets the desired number of replicas through the scale subresource. Raises NotFound."""
        await self._transport.request(
            "PATCH",
            resource.path(namespace, name, "scale"),
            _writing(dry_run),
            body={"spec": {"replicas": replicas}},
            content_type=MERGE_PATCH,
        )

    async def delete(
        self,
        resource: Resource[Any],
        namespace: str | None,
        name: str,
        *,
        uid: str,
        propagation: Propagation = "Foreground",
        dry_run: bool = False,
    ) -> bool:
        """Requests the deletion of exactly the object `uid`. Returns False if it does not exist (any more).

        True does not mean that the object is deleted: finalizers and dependents come first. Raises Forbidden.
        """
        options: Manifest = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": propagation,
            "preconditions": {"uid": uid},
        }
        if dry_run:
            options["dryRun"] = ["All"]
        try:
            await self._transport.request("DELETE", resource.path(namespace, name), body=options)
        except NotFound:
            return False
        return True

    async def may(self, verb: str, api_group: str, resource: str) -> bool:
        """Returns whether our credentials may do this in every namespace; `pods/log` is a subresource.

        The call needs no right, and the cluster stores nothing.
        """
        plural, _, subresource = resource.partition("/")
        attributes = {"verb": verb, "group": api_group, "resource": plural, "subresource": subresource}
        body: Manifest = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": _present(**attributes)},
        }
        answer = await self._transport.request("POST", ACCESS_REVIEWS, body=body)
        return decode(answer, AccessReview).status.allowed

    async def node_stats(self, node: str) -> StatsSummary:
        """Returns the kubelet's summary of a node's pods, through the API server, without those that cannot be read.

        Raises Unreachable for a lost node.
        """
        body = await self._listed(f"/api/v1/nodes/{node}/proxy/stats/summary")
        if len(body) <= AT_ONCE_BYTES:
            with suppress(Unreadable):
                return decode(body, StatsSummary)
        await self._check_items(body, "pods")
        pods = (await _cut_apart(body, _RawStats)).pods or ()
        found = [
            each async for pod in cooperatively(pods) if (each := await self._pod_stats(pod)) is not None
        ]
        return StatsSummary(tuple(found))

    async def _pod_stats(self, body: msgspec.Raw) -> PodStats | None:
        """Returns the usage of a pod; None if it cannot be read, which is logged. Raises AnswerTooLarge."""
        try:
            if len(body) > AT_ONCE_BYTES:
                await self._transport.check_values(body, "an object of a list")
            return decode(body, PodStats)
        except Unreadable:
            self._left_out.note("PodStats", ("", ""))
            return None

    @asynccontextmanager
    async def streaming(
        self, path: str, query: Mapping[str, str], *, idle_seconds: float | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yields a response that the caller reads as it arrives; `idle_seconds`: the longest silence, if any."""
        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=self.limits.request_seconds,
            sock_connect=self.limits.connect_seconds,
            sock_read=idle_seconds,
        )
        async with self._transport.answer("GET", path, query, timeout=timeout, stream=True) as response:
            yield response

    @asynccontextmanager
    async def websocket(
        self, path: str, query: Sequence[tuple[str, str]], protocols: Sequence[str]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Yields an open websocket, and closes it at the end."""
        async with self._transport.websocket(path, query, protocols) as socket:
            yield socket

    async def _listed(self, path: str, query: Mapping[str, str] | None = None, accept: str = JSON) -> bytes:
        """Returns a list that has no pages. Raises AnswerTooLarge."""
        most = self.limits.body_bytes
        try:
            return await self._transport.request("GET", path, query, accept=accept, page=PageBound(most))
        except TooLong:
            raise self._too_long("a response", most) from None

    async def _check_items(self, body: bytes, name: str, *, of_one: bool = False) -> None:
        """Checks a list, and waits for a turn to cut it into its items. Raises AnswerTooLarge."""
        async with self._transport.checks(body):
            try:
                await check_items(body, name, of_one=of_one)
            except TooMany as found:
                raise self._transport.too_large(f"a list has {found.words}") from None

    async def _check_page(self, body: bytes, limit: int) -> None:
        """Checks a page of `limit` objects as `_check_items` does; raises TooLong if a smaller one is needed."""
        async with self._transport.checks(body):
            try:
                await check_items(body, "items", of_one=limit == 1)
            except TooMany as found:
                if isinstance(found, TooDense) and limit > 1:
                    raise TooLong from None
                raise self._transport.too_large(f"a list has {found.words}") from None

    def _too_long(self, what: str, most: int) -> AnswerTooLarge:
        return self._transport.too_large(f"{what} has more than {most} bytes")

    async def _apply(
        self, resource: Resource[Any], manifest: Manifest, *, force: bool, dry_run: bool
    ) -> bytes:
        metadata = manifest["metadata"]
        query = {**_writing(dry_run), "force": "true" if force else "false"}
        path = resource.path(metadata.get("namespace"), metadata["name"])
        return await self._transport.request("PATCH", path, query, body=manifest, content_type=APPLY)


def _all_of(body: bytes, resource: Resource[T]) -> _Items[T] | None:
    """Returns the objects of a list; None if one of them cannot be read."""
    form: Any = _Items[resource.type]  # type: ignore[name-defined]
    try:
        return cast("_Items[T]", decode(body, form))
    except Unreadable:
        return None


async def _cut_apart(body: bytes, form: type[_Raw]) -> _Raw:
    """Returns the items of a list as raw JSON. If a lone surrogate makes the body unreadable, it is replaced first."""
    try:
        return decode(body, form)
    except Unreadable:
        if not may_be_unstorable(body):
            raise
    return decode(await mended(body), form)


async def _cut_line(line: bytes) -> Line:
    """Returns the event of a watch's line, after replacing lone surrogates if necessary, as in `_cut_apart`."""
    try:
        return cut_line(line)
    except Unreachable:
        if not may_be_unstorable(line):
            raise
    return cut_line(await mended(line))


def _writing(dry_run: bool) -> dict[str, str]:
    return {"fieldManager": FIELD_MANAGER, **({"dryRun": "All"} if dry_run else {})}


def _present(**parameters: str) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if value}


def object_key(value: KubernetesObject) -> tuple[str, str]:
    """Returns namespace and name."""
    return value.metadata.namespace, value.metadata.name
