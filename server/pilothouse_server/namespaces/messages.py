"""Namespaces: value ↔ protobuf, and the namespace that a request of any noun names."""

from __future__ import annotations

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_server.namespaces import operations
from pilothouse_server.namespaces.model import CachedNamespace, Namespace, NamespaceStatus, Quota
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.converter import Converter, Differences, EnumWords
from pilothouse_server.rpc.message_cache import MessageCache
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.values.resources import NamespaceId

STATUS: EnumWords[NamespaceStatus] = EnumWords(NamespaceStatus, pb.NamespaceStatus.DESCRIPTOR)
QUOTA: Converter[Quota, pb.ResourceQuota] = Converter(Quota, pb.ResourceQuota)
NAMESPACE: Converter[Namespace, pb.Namespace] = Converter(
    Namespace,
    pb.Namespace,
    Differences(
        names={"resource_quota": "quota"},
        struct_only=("id", "adopted", "default_pod_security", "row_version"),
    ),
    parts=(wire.CONDITION, QUOTA),
)

# The creator's name and the state of its cluster can change without the namespace's row.
CACHE: MessageCache[Namespace, pb.Namespace] = MessageCache(NAMESPACE, ("created_by", "stale_since"))


def added_to(ready: CachedNamespace) -> bytes:
    """Returns the bytes that complete the cached message of a namespace."""
    message = pb.Namespace(created_by=ready.created_by or "")
    if ready.stale_since is not None:
        message.stale_since.FromDatetime(ready.stale_since)
    return message.SerializeToString()


async def named_namespace(call: Call, transaction: ReadTransaction, name: str) -> NamespaceId | None:
    """Returns the id of the namespace that a list or a watch names, and notes it in the call's audit record.

    None if the request names no namespace, which means all namespaces that the caller may see.

    Raises:
        NotFound: there is no namespace of this name, or the caller may not see it.
    """
    if not name:
        return None
    found = await operations.locate(transaction, name)
    call.describe(namespace_id=found.id)
    return found.id


def parts(item: CachedNamespace | Namespace) -> tuple[bytes, bytes]:
    """Returns a serialized namespace in two parts; renders it only if no message is cached."""
    if isinstance(item, CachedNamespace):
        assert item.message is not None
        return item.message, added_to(item)
    return CACHE.parts(item)
