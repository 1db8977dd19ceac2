"""ObjectService: request → operation → response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from pilothouse.object.v1 import object_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_server.clusters import events
from pilothouse_server.clusters.messages import KUBERNETES_EVENT
from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.errors import invalid, missing
from pilothouse_server.guard.model import Keys
from pilothouse_server.kubernetes.discovery import KindDiscovery
from pilothouse_server.kubernetes.events import EventSubject
from pilothouse_server.namespaces.guarded import Labelling
from pilothouse_server.namespaces.messages import named_namespace
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.objects import facts, masking, messages, operations, records
from pilothouse_server.objects.discovery import kinds_of
from pilothouse_server.objects.dry_run import check_on_cluster
from pilothouse_server.objects.model import CarriedObject, ObjectKey
from pilothouse_server.objects.operations import ObjectRights
from pilothouse_server.rpc import read_mask, wire
from pilothouse_server.rpc.call import Call, waits_outside
from pilothouse_server.rpc.encoding import ListAnswer
from pilothouse_server.rpc.validation import check_update_mask
from pilothouse_server.rpc.watch import watch
from pilothouse_server.rpc.watched import NounWatch, Watched, WatchFilter, WatchServer
from pilothouse_server.rpc.watched_lists import WatchedList
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.values.key_patterns import KeyPatterns
from pilothouse_server.values.resources import ObjectWarning

# The import is in a layer above this noun, so it is passed in.
ImportObjects = Callable[[pb.ImportObjectsRequest, Call, ObjectRights], Awaitable[pb.ImportObjectsResponse]]
_LIST = ListAnswer(pb.ListObjectsResponse, "objects")


class ObjectService:
    """Serves `pilothouse.object.v1.ObjectService`."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["ObjectService"]

    def __init__(
        self,
        watches: WatchServer,
        page_key: bytes,
        connect: Connect,
        import_objects: ImportObjects,
        keys: Keys,
        guarded: KeyPatterns,
    ) -> None:
        self._watches = watches
        self._listed = WatchedList(watches, WATCH)
        self._page_key = page_key
        self._connect = connect
        self._import_objects = import_objects
        self._keys = keys
        self._guarded = guarded
        self._discovery = KindDiscovery()

    async def CreateObject(self, request: pb.CreateObjectRequest, call: Call) -> pb.CreateObjectResponse:
        """Creates an object."""
        created = await operations.create(
            await call.transaction(),
            request.namespace,
            messages.OBJECT.from_proto(request.object),
            rights=self._rights(call, request.namespace),
            default_policy=not request.object.drift_policy,
        )
        call.describe(document_digest=created.carried.document_digest)
        shown, told = await self._answer(call, created.carried, created.warnings)
        return pb.CreateObjectResponse(object=shown, warnings=told)

    async def GetObject(self, request: pb.GetObjectRequest, call: Call) -> pb.GetObjectResponse:
        """Returns one object; its events are read after the transaction has ended."""
        async with call.read() as transaction:
            found = await operations.locate(transaction, request.namespace, _key(request))
            found = await masking.shown(transaction, found, call.may)
        _describe(call, found)
        shown = messages.BASIC if request.view == pb.OBJECT_VIEW_BASIC else messages.OBJECT
        response = pb.GetObjectResponse(object=shown.to_proto(found))
        if request.include_events:
            subject = EventSubject(found.kind, found.name)
            asked = await events.read(self._connect, found.namespace_ref, [subject])
            response.events.extend(map(KUBERNETES_EVENT.to_proto, asked.events))
            response.events_unavailable = asked.unavailable
        return response

    async def ListObjects(self, request: pb.ListObjectsRequest, call: Call) -> bytes:
        """Lists objects."""
        full = request.view == pb.OBJECT_VIEW_FULL
        page = wire.page_request(
            call, self._page_key, request.namespace, request.label_selector, "full" if full else ""
        )
        fields = read_mask.of_request(request, pb.Object)
        listed = self._listed.begin()
        async with call.read() as transaction:
            namespace_id = await named_namespace(call, transaction, request.namespace)
            found, rests, next_page = await operations.list_page(
                transaction,
                page,
                namespace_id=namespace_id,
                selector=wire.label_selector(request.label_selector),
                visible=call.visible_namespaces(),
                message_format=messages.CACHE.format,
                full=full,
            )
            token = await listed.token(call, transaction, namespace_id)
            mask = await masking.of_clusters(transaction, call.may) if full else None
        if mask is not None:
            return await _LIST.answer(messages.whole(found, rests, mask), next_page, token, fields)
        return await _LIST.answer(map(messages.CACHE.parts, found), next_page, token, fields)

    async def UpdateObject(self, request: pb.UpdateObjectRequest, call: Call) -> pb.UpdateObjectResponse:
        """Changes the desired state of an object."""
        paths = check_update_mask(pb.Object, request.update_mask, messages.OBJECT.updatable)
        if not paths:
            raise missing("update_mask")
        changed = await operations.change(
            await call.transaction(),
            request.namespace,
            _key(request),
            messages.OBJECT.merger(request.object, paths),
            # The audit record has the documents' digests and the paths that differ, not the documents.
            call.noting(wire.etag_check(request.etag or request.object.etag), messages.BASIC.to_proto),
            rights=self._rights(call, request.namespace),
            default_policy="drift_policy" in paths and not request.object.drift_policy,
        )
        if changed.before is not None and changed.before.document != changed.carried.document:
            found = records.changes(changed.before, changed.carried, changed.kind.secret_paths)
            call.describe(document_changes=found)
        shown, told = await self._answer(call, changed.carried, changed.warnings)
        return pb.UpdateObjectResponse(object=shown, warnings=told)

    async def DeleteObject(self, request: pb.DeleteObjectRequest, call: Call) -> pb.DeleteObjectResponse:
        """Deletes an object."""
        gone = await operations.delete(
            await call.transaction(),
            request.namespace,
            _key(request),
            wire.etag_check(request.etag),
            call.may(request.namespace),
        )
        shown, _ = await self._answer(call, gone)
        return pb.DeleteObjectResponse(object=shown)

    @waits_outside
    async def ImportObjects(self, request: pb.ImportObjectsRequest, call: Call) -> pb.ImportObjectsResponse:
        """Takes existing objects over."""
        return await self._import_objects(request, call, self._rights(call, request.namespace))

    async def ListObjectKinds(
        self, request: pb.ListObjectKindsRequest, call: Call
    ) -> pb.ListObjectKindsResponse:
        """Returns the kinds of the namespace's cluster, which is queried after the transaction has ended."""
        async with call.read() as transaction:
            namespace = await locate_namespace(transaction, request.namespace)
            opened = await facts.of_cluster(transaction, namespace.cluster_name)
        call.describe(namespace_id=namespace.id)
        found = await kinds_of(self._connect, namespace.cluster_name, opened)
        return pb.ListObjectKindsResponse(kinds=map(messages.KIND.to_proto, found))

    def WatchObjects(self, request: pb.WatchObjectsRequest, call: Call) -> AsyncIterator[bytes]:
        """Watches objects."""
        if bool(request.api_version) != bool(request.kind):
            field = "kind" if request.api_version else "api_version"
            raise invalid(field, "must be given: give both api_version and kind, or neither")
        return watch(self._watches, call, _WATCHED)

    def _rights(self, call: Call, namespace: str) -> ObjectRights:
        return ObjectRights(Labelling(self._guarded, call.may(namespace)), self._keys)

    async def _answer(
        self, call: Call, carried: CarriedObject, ours: Sequence[ObjectWarning] = ()
    ) -> tuple[pb.Object, Iterable[resource_pb2.Warning]]:
        """Returns a mutation's response. With `validate_only` the cluster tries it first, without any lock.

        The warnings are `ours` and those of the cluster.
        """
        _describe(call, carried)
        seen = await masking.shown(await call.transaction(), carried, call.may)
        shown = messages.OBJECT.to_proto(seen)
        if not call.validate_only:
            return shown, map(wire.WARNING.to_proto, ours)
        await call.leave_transaction()
        told = await check_on_cluster(self._connect, self._discovery, carried)
        return shown, map(wire.WARNING.to_proto, (*ours, *told))


async def _resources(transaction: ReadTransaction, wanted: WatchFilter, call: Call) -> AsyncIterator[bytes]:
    full = wanted.full
    mask = await masking.of_clusters(transaction, call.may) if full else None
    async for item, rest in operations.stream_ready(
        transaction, wanted.matching, message_format=messages.CACHE.format, full=full
    ):
        completed = b"" if rest is None or mask is None else messages.rest(mask.texts(rest))
        yield b"".join((*messages.CACHE.parts(item), completed))


async def _rests(transaction: ReadTransaction, uids: Sequence[str], call: Call) -> Mapping[str, bytes]:
    found = await operations.rests_of(transaction, uids)
    mask = await masking.of_clusters(transaction, call.may)
    return {uid: messages.rest(mask.texts(rest)) for uid, rest in found.items()}


def _fields(request: Any) -> Mapping[str, str]:
    if not request.kind:
        return {}
    return {"api_group": request.api_version.rpartition("/")[0], "kind": request.kind}


def _is_full(request: Any) -> bool:
    return bool(request.view == pb.OBJECT_VIEW_FULL)


_WATCHED = Watched(
    "object",
    _resources,
    statuses=messages.STATUS.word,
    fields=_fields,
    rests=_rests,
    is_full=_is_full,
    message=pb.Object,
)
WATCH = NounWatch.of(_WATCHED, pb.DESCRIPTOR.services_by_name["ObjectService"], "WatchObjects")


def _key(request: Any) -> ObjectKey:
    return ObjectKey(request.api_version, request.kind, request.name)


def _describe(call: Call, carried: CarriedObject) -> None:
    call.describe(
        resource_id=carried.id,
        resource_uid=carried.uid,
        resource_name=carried.name,
        namespace_id=carried.namespace_id,
        object_kind=carried.kind,
    )
