"""Mounts volumes into containers: a protocol for the noun above this one.

`app.py` passes the implementation of the noun containers (`containers.mounting`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from pilothouse_server.authorization.access import May
from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.storage.model import Volume
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.volumes import VolumeMount


class Remounted(msgspec.Struct, frozen=True):
    """A volume after its mounts changed, and the number of pods that are replaced for the change.

    No pods are replaced if nothing changed or the container has no pods now. `check_on_cluster` tries the changed
    container on the cluster by a dry run; it raises as `clusters.refusals.tried`.
    """

    volume: Volume
    restarts: int
    check_on_cluster: Callable[[Connect], Awaitable[object]]


class VolumeMounter(Protocol):
    """Mounts volumes into containers."""

    async def attach(
        self, transaction: Transaction, namespace: str, container: str, wanted: VolumeMount, *, may: May
    ) -> Remounted:
        """Mounts the volume that `wanted` names into a container; without a path, at the volume's own path.

        Raises:
            InvalidArgument: neither `wanted` nor the volume names a path.
            NotFound: the namespace, the volume or the container.
            FailedPrecondition: the path is taken, or the volume or the container is being deleted.
            PermissionDenied: the volume is a folder of the node, or the container has rights over the node or keys that
                other programs act on, and the caller may not give these.
        """

    async def detach(
        self,
        transaction: Transaction,
        namespace: str,
        name: str,
        container: str,
        mount_path: str,
        *,
        may: May,
    ) -> Remounted:
        """Removes the mount of a volume at a path from a container and its init containers; without a path, all mounts.

        Raises:
            NotFound: the namespace, the volume or the container.
            PermissionDenied: the volume is a folder of the node, which pods keep for a while, and the caller may not
                mount one; or as `refuse_deletion`.
            FailedPrecondition: the volume is not mounted there, or the container is being deleted.
        """

    async def refuse_deletion(self, transaction: Transaction, volume: Volume, *, may: May) -> None:
        """Refuses to delete a volume that pods use without a mount of the volume's name.

        Raises:
            PermissionDenied: the volume shows a config map or secret to a container that is being deleted and that has
                rights, over the node or over others, that the caller may not give.
            FailedPrecondition: the claim would be deleted, and containers name it as an existing claim; or a pod of the
                StatefulSet that owns the claim needs it.
        """
