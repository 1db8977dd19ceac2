"""StorageService: request → operation → response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from functools import partial

from pilothouse.resource.v1 import resource_pb2
from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_server.clusters import events
from pilothouse_server.clusters.messages import KUBERNETES_EVENT
from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.errors import missing
from pilothouse_server.kubernetes.events import EventSubject
from pilothouse_server.namespaces.guarded import Labelling
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.cached_reads import CachedReads
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.encoding import AnswerField, ListAnswer
from pilothouse_server.rpc.validation import check_update_mask
from pilothouse_server.rpc.watch import watch
from pilothouse_server.rpc.watched import NounWatch, Watched, WatchServer
from pilothouse_server.rpc.watched_lists import WatchedList
from pilothouse_server.storage import messages, operations
from pilothouse_server.storage.dry_run import check_on_cluster
from pilothouse_server.storage.model import Volume
from pilothouse_server.storage.mounter import Remounted, VolumeMounter
from pilothouse_server.storage.rules import HOST_PATH_PERMISSION
from pilothouse_server.values.key_patterns import KeyPatterns
from pilothouse_server.values.volumes import VolumeMount

_READS = CachedReads(
    operations.CACHED,
    messages.CACHE,
    AnswerField(pb.GetVolumeResponse, "volume"),
    ListAnswer(pb.ListVolumesResponse, "volumes"),
)


class StorageService:
    """Serves `pilothouse.storage.v1.StorageService`."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["StorageService"]

    def __init__(
        self,
        watches: WatchServer,
        page_key: bytes,
        connect: Connect,
        mounter: VolumeMounter,
        guarded: KeyPatterns,
    ) -> None:
        self._watches = watches
        self._listed = WatchedList(watches, WATCH)
        self._page_key = page_key
        self._connect = connect
        self._mounter = mounter
        self._guarded = guarded

    async def CreateVolume(self, request: pb.CreateVolumeRequest, call: Call) -> pb.CreateVolumeResponse:
        """Creates a volume."""
        if not request.volume.type:
            raise missing("volume.type")
        may = call.may(request.namespace)
        created = await operations.create(
            await call.transaction(),
            request.namespace,
            messages.VOLUME.from_proto(request.volume),
            labelling=Labelling(self._guarded, may),
            may_use_host_paths=may(HOST_PATH_PERMISSION),
        )
        shown, told = await self._answer(call, created)
        return pb.CreateVolumeResponse(volume=shown, warnings=told)

    async def GetVolume(self, request: pb.GetVolumeRequest, call: Call) -> pb.GetVolumeResponse | bytes:
        """Returns one volume; the events of its claim are read after the transaction has ended."""
        if not request.include_events:
            stored = await _READS.get(request, call)
            if stored is not None:
                return stored
        async with call.read() as transaction:
            found = await operations.locate(transaction, request.namespace, request.name)
        response = pb.GetVolumeResponse(volume=_described(call, found))
        if request.include_events and found.is_claim:
            claim = EventSubject("PersistentVolumeClaim", found.kubernetes_name)
            found_events = await events.read(self._connect, found.namespace_ref, [claim])
            response.events.extend(map(KUBERNETES_EVENT.to_proto, found_events.events))
            response.events_unavailable = found_events.unavailable
        return response

    async def ListVolumes(self, request: pb.ListVolumesRequest, call: Call) -> bytes:
        """Lists volumes."""
        return await _READS.list(request, call, self._page_key, self._listed)

    async def UpdateVolume(self, request: pb.UpdateVolumeRequest, call: Call) -> pb.UpdateVolumeResponse:
        """Changes the desired state of a volume."""
        paths = check_update_mask(pb.Volume, request.update_mask, messages.VOLUME.updatable)
        if not paths and not request.replace_lost_claim:
            raise missing("update_mask")
        changed = await operations.change(
            await call.transaction(),
            request.namespace,
            request.name,
            messages.VOLUME.merger(request.volume, paths),
            call.noting(wire.etag_check(request.etag or request.volume.etag), messages.VOLUME.to_proto),
            labelling=Labelling(self._guarded, call.may(request.namespace)),
            replace_lost_claim=request.replace_lost_claim,
        )
        shown, told = await self._answer(call, changed)
        return pb.UpdateVolumeResponse(volume=shown, warnings=told)

    async def DeleteVolume(self, request: pb.DeleteVolumeRequest, call: Call) -> pb.DeleteVolumeResponse:
        """Deletes a volume."""
        transaction = await call.transaction()
        gone = await operations.delete(
            transaction,
            request.namespace,
            request.name,
            wire.etag_check(request.etag),
            partial(self._mounter.refuse_deletion, transaction, may=call.may(request.namespace)),
        )
        shown, _ = await self._answer(call, gone)
        return pb.DeleteVolumeResponse(volume=shown)

    async def AttachVolume(self, request: pb.AttachVolumeRequest, call: Call) -> pb.AttachVolumeResponse:
        """Mounts a volume into a container."""
        remounted = await self._mounter.attach(
            await call.transaction(),
            request.namespace,
            request.container,
            VolumeMount(request.name, request.mount_path, request.read_only, request.sub_path),
            may=call.may(request.namespace),
        )
        call.describe(container=request.container)
        shown = await self._remounted_answer(call, remounted)
        return pb.AttachVolumeResponse(volume=shown, restarts=remounted.restarts)

    async def DetachVolume(self, request: pb.DetachVolumeRequest, call: Call) -> pb.DetachVolumeResponse:
        """Removes the mounts of a volume from a container."""
        remounted = await self._mounter.detach(
            await call.transaction(),
            request.namespace,
            request.name,
            request.container,
            request.mount_path,
            may=call.may(request.namespace),
        )
        call.describe(container=request.container)
        shown = await self._remounted_answer(call, remounted)
        return pb.DetachVolumeResponse(volume=shown, restarts=remounted.restarts)

    async def _answer(self, call: Call, volume: Volume) -> tuple[pb.Volume, Iterable[resource_pb2.Warning]]:
        """Returns a mutation's response. With `validate_only` the cluster tries it first, without any lock.

        The warnings are those of the cluster.
        """
        shown = _described(call, volume)
        if not call.validate_only:
            return shown, ()
        await call.leave_transaction()
        return shown, map(wire.WARNING.to_proto, await check_on_cluster(self._connect, volume))

    async def _remounted_answer(self, call: Call, remounted: Remounted) -> pb.Volume:
        """Returns the same for a change of the container that mounts the volume."""
        shown = _described(call, remounted.volume)
        if call.validate_only:
            await call.leave_transaction()
            await remounted.check_on_cluster(self._connect)
        return shown

    def WatchVolumes(self, _request: pb.WatchVolumesRequest, call: Call) -> AsyncIterator[bytes]:
        """Watches volumes."""
        return watch(self._watches, call, _WATCHED)


_WATCHED = Watched("volume", _READS.first_state, statuses=messages.STATUS.word, message=pb.Volume)
WATCH = NounWatch.of(_WATCHED, pb.DESCRIPTOR.services_by_name["StorageService"], "WatchVolumes")


def _described(call: Call, volume: Volume) -> pb.Volume:
    call.describe(resource_id=volume.id, resource_uid=volume.uid, namespace_id=volume.namespace_id)
    return messages.VOLUME.to_proto(volume)
