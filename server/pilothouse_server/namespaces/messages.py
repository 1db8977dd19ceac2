"""Namespaces: value ↔ protobuf; what differs between the two."""

from __future__ import annotations

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_server.namespaces.model import Namespace, NamespaceStatus, Quota
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import Converter, Differences, EnumWords

STATUS: EnumWords[NamespaceStatus] = EnumWords(NamespaceStatus, pb.NamespaceStatus.DESCRIPTOR)
QUOTA: Converter[Quota, pb.ResourceQuota] = Converter(Quota, pb.ResourceQuota)
NAMESPACE: Converter[Namespace, pb.Namespace] = Converter(
    Namespace,
    pb.Namespace,
    Differences(names={"resource_quota": "quota"}, struct_only=("id", "adopted")),
    parts=(wire.CONDITION, QUOTA),
)
