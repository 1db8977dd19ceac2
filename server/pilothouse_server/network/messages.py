"""Services: value ↔ protobuf; the differences between the two."""

from __future__ import annotations

from pilothouse.network.v1 import network_pb2 as pb
from pilothouse_server.network.model import Service, ServiceStatus
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import Converter, Differences, EnumWords
from pilothouse_server.rpc.message_cache import MessageCache
from pilothouse_server.values.cached_message import CachedMessage

STATUS: EnumWords[ServiceStatus] = EnumWords(ServiceStatus, pb.ServiceStatus.DESCRIPTOR)
SERVICE: Converter[Service, pb.Service] = Converter(
    Service,
    pb.Service,
    Differences(
        within=("spec", "observed"),
        struct_only=(
            *("id", "namespace_ref", "owner_id", "taken_over", "container_uids", "row_version"),
            "spec.rights",
        ),
    ),
    parts=(wire.CONDITION,),
)
# The creator's name changes without the Service.
CACHE: MessageCache[Service, pb.Service] = MessageCache(SERVICE, ("created_by",))


def added_to(ready: CachedMessage) -> bytes:
    """Returns the values that are added to the stored part of a Service."""
    return pb.Service(created_by=ready.created_by or "").SerializeToString()


def parts(item: CachedMessage | Service) -> tuple[bytes, bytes]:
    """Returns a serialised Service in two parts, rendered only where nothing is stored."""
    if isinstance(item, CachedMessage):
        assert item.message is not None
        return item.message, added_to(item)
    return CACHE.parts(item)
