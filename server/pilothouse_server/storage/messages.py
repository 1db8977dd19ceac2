"""Volumes: value ↔ protobuf; what differs between the two."""

from __future__ import annotations

from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import Converter, Differences, EnumWords
from pilothouse_server.rpc.ready import ReadyMessages
from pilothouse_server.storage.model import Status, Volume

STATUS: EnumWords[Status] = EnumWords(Status, pb.VolumeStatus.DESCRIPTOR)
VOLUME: Converter[Volume, pb.Volume] = Converter(
    Volume,
    pb.Volume,
    Differences(
        within=("observed",),
        # What the claim has, beside what was asked for.
        names={"claim_storage_class": "observed.storage_class"},
        struct_only=("id", "namespace_ref", "taken_over", "row_version"),
    ),
    parts=(wire.CONDITION,),
)
# The creator's name and the containers that mount it change without the volume.
READY: ReadyMessages[Volume, pb.Volume] = ReadyMessages(VOLUME, ("created_by", "mounted_by"))
