"""Clusters: value ↔ protobuf; the differences between the two."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep, thread_time

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.clusters.access import refusal
from pilothouse_server.clusters.model import Cluster, ObjectKind, OrphanAction, OrphanedObject
from pilothouse_server.clusters.operations.deregistration import Objects
from pilothouse_server.clusters.operations.orphans import Resolved
from pilothouse_server.errors import invalid
from pilothouse_server.kubernetes import credentials
from pilothouse_server.kubernetes.connection import check_reach
from pilothouse_server.kubernetes.credentials import ClusterCredentials
from pilothouse_server.kubernetes.errors import CredentialsRefused
from pilothouse_server.kubernetes.events import KubernetesEvent
from pilothouse_server.kubernetes.rights import Right
from pilothouse_server.outbound.destinations import Reach
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import AnswerConverter, Converter, Differences, EnumWords

OBJECTS_OF: dict[int, Objects] = {
    pb.DEREGISTERED_OBJECTS_UNSPECIFIED: "refuse",
    pb.DEREGISTERED_OBJECTS_ORPHAN: "orphan",
    pb.DEREGISTERED_OBJECTS_DELETE: "delete",
}
ACTIONS: EnumWords[OrphanAction] = EnumWords(OrphanAction, pb.OrphanAction.DESCRIPTOR)
OBJECT_KIND: Converter[ObjectKind, pb.ObjectKind] = Converter(ObjectKind, pb.ObjectKind)
CLUSTER: Converter[Cluster, pb.Cluster] = Converter(
    Cluster, pb.Cluster, Differences(struct_only=("id",)), parts=(wire.CONDITION, OBJECT_KIND)
)
ORPHAN = AnswerConverter(OrphanedObject, pb.Orphan)
KUBERNETES_EVENT = AnswerConverter(
    KubernetesEvent,
    resource.KubernetesEvent,
    Differences(names={"object_kind": "kind", "object_name": "name"}),
)
_RIGHT = AnswerConverter(Right, pb.ClusterRight, Differences(message_only=("denied",)))


def orphan_name(orphan: OrphanedObject) -> str:
    """Returns the name of an orphan for an audit record."""
    return f"{orphan.kind} {orphan.kubernetes_namespace}/{orphan.name}"


def resolved(item: Resolved) -> pb.ResolvedOrphan:
    """Returns the result of importing one orphan: its new name, or the problems."""
    return pb.ResolvedOrphan(
        orphan=ORPHAN.to_proto(item.orphan),
        imported_as=item.imported_as,
        problems=item.problems,
        notes=item.notes,
    )


class _Reader:
    """Reads kubeconfigs one after the other, in its own thread.

    Reading YAML blocks the event loop through the interpreter lock, tens of milliseconds for a large document. So the
    thread rests before the next document, for `REST` times the CPU time of the last one.
    """

    REST = 4.0

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kubeconfig")
        self._rested_at = 0.0

    async def read(self, text: str, context: str) -> ClusterCredentials:
        """Returns the credentials in a kubeconfig. Raises CredentialsRefused."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, text, context)

    def _read(self, text: str, context: str) -> ClusterCredentials:
        sleep(max(0.0, self._rested_at - monotonic()))
        began = thread_time()
        try:
            return credentials.from_kubeconfig(text, context)
        finally:
            self._rested_at = monotonic() + self.REST * (thread_time() - began)


_READER = _Reader()


async def read_credentials(message: pb.ClusterCredentials, reach: Reach) -> ClusterCredentials:
    """Returns the credentials of a request, checked as far as possible without the cluster.

    `reach`: the addresses that may be connected to.

    Raises:
        InvalidArgument: no credentials are given, or they cannot be used.
    """
    source = message.WhichOneof("source")
    if source == "in_cluster":
        return credentials.IN_CLUSTER
    if source is None:
        raise invalid("credentials", "must have a kubeconfig, an address or in_cluster", reason="REQUIRED")
    try:
        read = await _read(message)
        check_reach(read.cluster, reach)
    except CredentialsRefused as error:
        part = "kubeconfig" if source == "kubeconfig" else error.field or "address"
        raise refusal(error, f"credentials.{part}") from None
    return read


async def _read(message: pb.ClusterCredentials) -> ClusterCredentials:
    if message.HasField("kubeconfig"):
        return await _READER.read(message.kubeconfig.text, message.kubeconfig.context)
    address = message.address
    return credentials.from_address(
        address.api_server,
        address.token,
        authority=address.certificate_authority,
        proxy_url=address.proxy_url,
    )


def right(value: Right, *, denied: bool = False) -> pb.ClusterRight:
    """Returns a right as protobuf, and whether a cluster denies it."""
    message = _RIGHT.to_proto(value)
    message.denied = denied
    return message
