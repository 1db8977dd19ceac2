"""Carried objects; `pilothouse.object.v1.ObjectService` describes each call and its errors."""

from __future__ import annotations

from pilothouse.object.v1 import object_pb2 as pb
from pilothouse_client.rpc import NounClient, Pages, Unary, Watch, whole
from pilothouse_client.transport import TransportT


class CarriedObjects(NounClient[TransportT]):
    """`client.objects`."""

    create = Unary(pb.CreateObjectRequest, pb.CreateObjectResponse, lambda answer: answer.object)
    get = Unary(pb.GetObjectRequest, pb.GetObjectResponse, lambda answer: answer.object)
    list = Pages(pb.ListObjectsRequest, pb.ListObjectsResponse, lambda answer: answer.objects)
    update = Unary(pb.UpdateObjectRequest, pb.UpdateObjectResponse, lambda answer: answer.object)
    delete = Unary(pb.DeleteObjectRequest, pb.DeleteObjectResponse, lambda answer: answer.object)
    watch = Watch(pb.WatchObjectsRequest, pb.WatchObjectsResponse, lambda answer: answer.object)
    import_ = Unary(pb.ImportObjectsRequest, pb.ImportObjectsResponse, whole)
    kinds = Unary(pb.ListObjectKindsRequest, pb.ListObjectKindsResponse, lambda answer: list(answer.kinds))
