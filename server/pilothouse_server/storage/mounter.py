"""Mounting volumes into containers: a protocol for the noun above this one.

`app.py` hands it in; the noun containers implements it (`containers.mounting`).
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
    """A volume after its mounts changed, and how many pods are replaced for it.

    None are where it is mounted so already, or where the container has none now. `check_on_cluster` has the cluster try
    the changed container out, and changes nothing; it raises as `clusters.refusals.tried`.
    """

    volume: Volume
    restarts: int
    check_on_cluster: Callable[[Connect], Awaitable[object]]


class VolumeMounter(Protocol):
    """Mounts volumes into containers."""

    async def attach(
        self, transaction: Transaction, namespace: str, container: str, wanted: VolumeMount, *, may: May
    ) -> Remounted:
        """Mounts the volume that `wanted` names into a container; without a path, at the volume's own.

        Raises:
            InvalidArgument: neither names a path.
            NotFound: the namespace, the volume or the container.
            FailedPrecondition: the path is taken, or one of the two is being deleted.
            PermissionDenied: a folder of the node, or a container with rights over it or keys that others obey, and the
                caller may not.
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
        """Removes the mount of a volume at a path from a container and its init containers; without a path, all.

        Raises:
            NotFound: the namespace, the volume or the container.
            PermissionDenied: it is a folder of the node, which pods keep for a while, and the caller may not mount one;
                or as `refuse_deletion`.
            FailedPrecondition: it is not mounted there, or the container is being deleted.
        """

    async def refuse_deletion(self, transaction: Transaction, volume: Volume, *, may: May) -> None:
        """Refuses to delete a volume that pods use without a mount of the volume's name.

        Raises:
            PermissionDenied: it shows a config map or secret to a container with rights over the node, or others, that
                is being deleted, and the caller may not give one such.
            FailedPrecondition: its claim would go, and containers name that claim as an existing one, or a pod of the
                StatefulSet that owns it needs it.
        """
