"""The containers that read config maps and secrets, for the noun config (`config.readers.ReaderLookup`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pilothouse_server.authorization.access import May
from pilothouse_server.config.model import Kind
from pilothouse_server.containers import guarding, operations, repository, rules
from pilothouse_server.guard.model import PRIVILEGED
from pilothouse_server.storage.operations import showing as volumes_showing
from pilothouse_server.storage.rules import HOST_PATH_PERMISSION
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.key_patterns import KeyPatterns
from pilothouse_server.values.resources import NamespaceId


class ConfigReaders:
    """Implements `config.readers.ReaderLookup`, which documents each method.

    `guarded`: patterns of the keys that give rights to pods (`containers.guarding`).
    """

    def __init__(self, guarded: KeyPatterns) -> None:
        self._guarded = guarded

    async def containers(
        self, transaction: ReadTransaction, namespace_id: NamespaceId, kind: Kind, names: Sequence[str]
    ) -> Sequence[str]:
        return list((await repository.users_of_source(transaction, namespace_id, kind, names)).values())

    async def volumes(
        self, transaction: ReadTransaction, namespace_id: NamespaceId, kind: Kind, names: Sequence[str]
    ) -> Sequence[str]:
        return await volumes_showing(transaction, namespace_id, kind, names)

    async def needing(
        self,
        transaction: ReadTransaction,
        namespace_id: NamespaceId,
        kind: Kind,
        name: str,
        keys: Collection[str],
    ) -> Sequence[str]:
        if not keys:
            return []
        readers = await repository.users_of_source(transaction, namespace_id, kind, [name])
        found = await repository.get_many(transaction, list(readers))
        return [each.name for each in found if rules.reads_keys(each, kind, name, keys)]

    async def refuse_power(
        self,
        transaction: ReadTransaction,
        namespace_id: NamespaceId,
        kind: Kind,
        names: Sequence[str],
        may: May,
    ) -> None:
        if may(PRIVILEGED) and may(HOST_PATH_PERMISSION):
            return
        # Containers that are being deleted count, because their pods run until the grace period ends.
        readers = await repository.users_of_source(transaction, namespace_id, kind, names, deleting=True)
        for each in await repository.get_many(transaction, list(readers)):
            guarding.refuse_power_by_reading(each, self._guarded, may, "data that this call changes")

    async def restart(
        self, transaction: Transaction, namespace_id: NamespaceId, kind: Kind, name: str
    ) -> Sequence[str]:
        restarted = []
        for container_id in await repository.users_of_source(transaction, namespace_id, kind, [name]):
            stored = await repository.get(transaction, container_id, lock=True)
            if (
                stored is None
                or stored.desired_state != "running"
                or stored.deletion_requested_at is not None
            ):
                continue
            await operations.restart_locked(transaction, stored)
            restarted.append(stored.name)
        return restarted
