"""Volumes: value ↔ protobuf; the differences between the two."""

from __future__ import annotations

from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import Converter, Differences, EnumWords
from pilothouse_server.rpc.message_cache import MessageCache
from pilothouse_server.storage.model import CachedVolume, Status, Volume

STATUS: EnumWords[Status] = EnumWords(Status, pb.VolumeStatus.DESCRIPTOR)
VOLUME: Converter[Volume, pb.Volume] = Converter(
    Volume,
    pb.Volume,
    Differences(
        within=("observed",),
        # The class of the claim; the requested class has its own field.
        names={"claim_storage_class": "observed.storage_class"},
        struct_only=(
            "id",
            "namespace_ref",
            "taken_over",
            "row_version",
            "owner_id",
            "templated",
            "given_back",
            "ends_with_claim",
        ),
    ),
    parts=(wire.CONDITION,),
)


def _added_to(stored: CachedVolume) -> bytes:
    return pb.Volume(created_by=stored.created_by or "", mounted_by=stored.mounted_by).SerializeToString()


# The creator's name and the containers that mount a volume can change without the volume's row.
CACHE: MessageCache[Volume, pb.Volume] = MessageCache(
    VOLUME, ("created_by", "mounted_by"), added_to=_added_to
)
