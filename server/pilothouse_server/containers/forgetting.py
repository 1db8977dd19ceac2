"""Containers are forgotten with a cluster that is left as it is: their rows go, what runs goes on."""

from __future__ import annotations

from pilothouse_server.containers.operations import event
from pilothouse_server.containers.repository import removal
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.store.unit_of_work import Transaction


async def forget_all(transaction: Transaction, namespace: Namespace) -> None:
    """Forgets every container of a namespace, with their tombstones; its cluster keeps its objects."""
    for container in await removal.remove_of_namespace(transaction, int(namespace.id)):
        transaction.emit(event(container, "deleted", container))
