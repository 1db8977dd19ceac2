"""The readers of config maps and secrets: a protocol for the nouns above this one.

`app.py` passes the implementation of the noun containers (`containers.config_readers`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from pilothouse_server.authorization.access import May
from pilothouse_server.config.model import Kind
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.resources import NamespaceId


class ReaderLookup(Protocol):
    """Finds the readers of config maps or secrets of a namespace.

    Containers and volumes that are being deleted are not readers, except for `refuse_power`.
    """

    async def containers(
        self, transaction: ReadTransaction, namespace_id: NamespaceId, kind: Kind, names: Sequence[str]
    ) -> Sequence[str]:
        """Returns the names of the containers whose environment or volumes use one of these config maps or secrets."""

    async def volumes(
        self, transaction: ReadTransaction, namespace_id: NamespaceId, kind: Kind, names: Sequence[str]
    ) -> Sequence[str]:
        """Returns the names of the volumes that show one of these config maps or secrets."""

    async def needing(
        self,
        transaction: ReadTransaction,
        namespace_id: NamespaceId,
        kind: Kind,
        name: str,
        keys: Collection[str],
    ) -> Sequence[str]:
        """Returns the names of the containers whose environment requires one of its `keys`."""

    async def refuse_power(
        self,
        transaction: ReadTransaction,
        namespace_id: NamespaceId,
        kind: Kind,
        names: Sequence[str],
        may: May,
    ) -> None:
        """Raises PermissionDenied if a container that reads one of these has rights that the caller may not give.

        A caller who writes a container's configuration, such as a script or the arguments of a program,
        decides which code it runs.
        """

    async def restart(
        self, transaction: Transaction, namespace_id: NamespaceId, kind: Kind, name: str
    ) -> Sequence[str]:
        """Restarts the running containers that read the config; returns their names.

        The cluster gets the new values first: a container's own apply waits for the objects that it reads.
        """
