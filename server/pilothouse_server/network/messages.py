"""Services: value ↔ protobuf; the differences between the two."""

from __future__ import annotations

from pilothouse.network.v1 import network_pb2 as pb
from pilothouse_server.network.model import Service, ServiceStatus
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import Converter, Differences, EnumWords
from pilothouse_server.rpc.message_cache import MessageCache

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
# The creator's name can change without the Service's row.
CACHE: MessageCache[Service, pb.Service] = MessageCache(SERVICE, ("created_by",))
