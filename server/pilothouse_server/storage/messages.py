"""Volumes: value ↔ protobuf; what differs between the two."""

from __future__ import annotations

from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import Converter, Differences, EnumWords
from pilothouse_server.rpc.ready import ReadyMessages
from pilothouse_server.storage.model import ReadyVolume, Status, Volume

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


def added_to(ready: ReadyVolume) -> bytes:
    """Returns what is added to the part of a volume that is kept."""
    return pb.Volume(created_by=ready.created_by or "", mounted_by=ready.mounted_by).SerializeToString()


def parts(item: ReadyVolume | Volume) -> tuple[bytes, bytes]:
    """Returns a serialised volume in two parts, rendered only where nothing is kept."""
    if isinstance(item, ReadyVolume):
        assert item.message is not None
        return item.message, added_to(item)
    return READY.parts(item)
