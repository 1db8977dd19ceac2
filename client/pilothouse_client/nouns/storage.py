"""Volumes; `pilothouse.storage.v1.StorageService` documents each call and its errors."""

from __future__ import annotations

from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_client.rpc import NounClient, Pages, Unary, Watch, whole
from pilothouse_client.transport import TransportT


class Storage(NounClient[TransportT]):
    """`client.storage`."""

    create_volume = Unary(pb.CreateVolumeRequest, pb.CreateVolumeResponse, lambda answer: answer.volume)
    get_volume = Unary(pb.GetVolumeRequest, pb.GetVolumeResponse, lambda answer: answer.volume)
    list_volumes = Pages(pb.ListVolumesRequest, pb.ListVolumesResponse, lambda answer: answer.volumes)
    update_volume = Unary(pb.UpdateVolumeRequest, pb.UpdateVolumeResponse, lambda answer: answer.volume)
    delete_volume = Unary(pb.DeleteVolumeRequest, pb.DeleteVolumeResponse, lambda answer: answer.volume)
    # The responses also list the containers that restart.
    attach_volume = Unary(pb.AttachVolumeRequest, pb.AttachVolumeResponse, whole)
    detach_volume = Unary(pb.DetachVolumeRequest, pb.DetachVolumeResponse, whole)
    watch_volumes = Watch(pb.WatchVolumesRequest, pb.WatchVolumesResponse, lambda answer: answer.volume)
